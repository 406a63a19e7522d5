"""The values: bytes on their way in, bytes at rest, and what a record says of them."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

# Where the attachment of a record is served, in a URL.
_ATTACHMENT_URL = re.compile(
    r"(?:.*/)?v[0-9]+/buckets/([^/?#]+)/collections/([^/?#]+)/records/([^/?#]+)/attachment"
)


@dataclass(frozen=True)
class RecordRef:
    """Which record, by the ids in its URL.

    >>> RecordRef("blog", "articles", "first").uri
    '/buckets/blog/collections/articles/records/first'
    """

    bucket: str
    collection: str
    record: str

    @property
    def path(self) -> tuple[str, str, str]:
        return (self.bucket, self.collection, self.record)

    @property
    def collection_uri(self) -> str:
        return f"/buckets/{self.bucket}/collections/{self.collection}"

    @property
    def uri(self) -> str:
        return f"{self.collection_uri}/records/{self.record}"

    @classmethod
    def attached_at(cls, location: str) -> "RecordRef | None":
        """The record whose attachment is served at that URL, if it is such a URL.

        >>> ref = RecordRef("blog", "articles", "first")
        >>> RecordRef.attached_at(f"https://kinto.example/v1{ref.uri}/attachment") == ref
        True
        >>> RecordRef.attached_at("https://cdn.example/blog/articles/a.png")
        """
        match = _ATTACHMENT_URL.fullmatch(location)
        return cls(*(unquote(part) for part in match.groups())) if match else None


@dataclass(frozen=True)
class MediaRef:
    """An entry of the media store: somebody keeps the bytes of a hash there.

    :param owner: the principal whose entry it is.
    :param digest: SHA-256, lowercase hex.

    >>> MediaRef("basicauth:ab/c", "e3b0").uri
    '/media/basicauth:ab%2Fc/e3b0'
    """

    owner: str
    digest: str

    @property
    def path(self) -> tuple[str, str, str]:
        """As that of records; but no bucket can have such an id."""
        return ("~media~", self.owner, self.digest)

    @property
    def uri(self) -> str:
        return f"/media/{quote(self.owner, safe=':')}/{self.digest}"


@dataclass(frozen=True)
class UploadRef:
    """A file that came for the media library, and that no record has yet.

    >>> UploadRef("38e4e0f8").uri
    '/uploads/38e4e0f8'
    """

    id: str

    @property
    def path(self) -> tuple[str, str, str]:
        return ("~upload~", "unclaimed", self.id)

    @property
    def uri(self) -> str:
        return f"/uploads/{self.id}"


Ref = RecordRef | MediaRef | UploadRef
"""Who has a blob."""


def read_ref(uri: str) -> Ref:
    """Whose URI it is.

    >>> read_ref("/media/basicauth:ab%2Fc/e3b0")
    MediaRef(owner='basicauth:ab/c', digest='e3b0')
    """
    _, kind, *parts = uri.split("/")
    if kind == "media":
        return MediaRef(unquote(parts[0]), parts[1])
    if kind == "uploads":
        return UploadRef(parts[0])
    return RecordRef(parts[0], parts[2], parts[4])
