"""References: the owner of a blob. A record, an entry of the media store, or an upload to the media
library that no object describes yet."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_RECORD_URI = re.compile(r"/buckets/([^/]+)/collections/([^/]+)/records/([^/]+)")
# Where the attachment of a record is served, in a URL.
_ATTACHMENT_URL = re.compile(
    r"(?:.*/)?v[0-9]+/buckets/([^/?#]+)/collections/([^/?#]+)/records/([^/?#]+)/attachment"
)


@dataclass(frozen=True)
class RecordRef:
    """A record, by the ids in its URL.

    >>> RecordRef("blog", "articles", "first").uri
    '/buckets/blog/collections/articles/records/first'
    """

    bucket: str
    collection: str
    record: str

    @property
    def path(self) -> tuple[str, str, str]:
        """Three names, from the widest to the narrowest."""
        return (self.bucket, self.collection, self.record)

    @property
    def collection_uri(self) -> str:
        """The URI of its collection."""
        return f"/buckets/{self.bucket}/collections/{self.collection}"

    @property
    def uri(self) -> str:
        """The URI of the record, as Kinto writes it."""
        return f"{self.collection_uri}/records/{self.record}"

    @classmethod
    def from_uri(cls, uri: str) -> "RecordRef | None":
        """Return the record of that URI, or None if it is not the URI of a record.

        >>> RecordRef.from_uri("/buckets/blog/collections/articles/records/first")
        RecordRef(bucket='blog', collection='articles', record='first')
        >>> RecordRef.from_uri("/buckets/blog")
        """
        match = _RECORD_URI.fullmatch(uri)
        return cls(*match.groups()) if match else None

    @classmethod
    def attached_at(cls, location: str) -> "RecordRef | None":
        """Return the record whose attachment is served at that URL, or None if it is another URL.

        >>> ref = RecordRef("blog", "articles", "first")
        >>> RecordRef.attached_at(f"https://kinto.example/v1{ref.uri}/attachment") == ref
        True
        >>> RecordRef.attached_at("https://cdn.example/blog/articles/a.png")
        """
        match = _ATTACHMENT_URL.fullmatch(location)
        return cls(*(unquote(part) for part in match.groups())) if match else None


@dataclass(frozen=True)
class MediaRef:
    """An entry of the media store: one principal keeps the bytes of one hash.

    :param owner: the principal.
    :param digest: SHA-256, lowercase hex.

    >>> MediaRef("basicauth:ab/c", "e3b0").uri
    '/media/basicauth:ab%2Fc/e3b0'
    """

    owner: str
    digest: str

    @property
    def path(self) -> tuple[str, str, str]:
        """Three names, as those of a record. The first cannot be the id of a bucket."""
        return ("~media~", self.owner, self.digest)

    @property
    def uri(self) -> str:
        """The URI that its link is stored with."""
        return f"/media/{quote(self.owner, safe=':')}/{self.digest}"


@dataclass(frozen=True)
class UploadRef:
    """A file that was uploaded to the media library, before an object describes it.

    >>> UploadRef("38e4e0f8").uri
    '/uploads/38e4e0f8'
    """

    id: str

    @property
    def path(self) -> tuple[str, str, str]:
        """As that of a record; no bucket can have such an id."""
        return ("~upload~", "unclaimed", self.id)

    @property
    def uri(self) -> str:
        """The URI that its link is stored with."""
        return f"/uploads/{self.id}"


Ref = RecordRef | MediaRef | UploadRef
"""The owner of a blob."""


def read_ref(uri: str) -> Ref:
    """Return the owner that has that URI.

    :raises ValueError: if no owner can have it.

    >>> read_ref("/media/basicauth:ab%2Fc/e3b0")
    MediaRef(owner='basicauth:ab/c', digest='e3b0')
    """
    record = RecordRef.from_uri(uri)
    if record:
        return record
    match uri.split("/"):
        case ["", "media", owner, digest]:
            return MediaRef(unquote(owner), digest)
        case ["", "uploads", upload_id]:
            return UploadRef(upload_id)
    raise ValueError(f"{uri!r} is not the URI of a record, a media entry or an upload")
