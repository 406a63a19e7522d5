"""References: the owner of a blob. A field of a record or an entry of one, an entry of the media
store, or an upload to the media library that no object describes yet."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

ATTRIBUTE = "attachment"
"""The field that a record has without any setting. Its rows and URLs are older than the others."""

_RECORD_URI = re.compile(r"/buckets/([^/]+)/collections/([^/]+)/records/([^/]+)")
_FIELD_URI = re.compile(rf"({_RECORD_URI.pattern})/attachments/([^/]+)(?:/([^/]+))?")
# Where a file of a record is served, in a URL.
_FILE_URL = re.compile(
    r"(?:.*/)?v[0-9]+/buckets/([^/?#]+)/collections/([^/?#]+)/records/([^/?#]+)"
    r"/(?:attachments/([a-z][a-z0-9_]*)(?:/([0-9a-f-]+))?|attachment)"
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


@dataclass(frozen=True)
class FieldRef:
    """The place of one file on a record: a field, or one entry of a field that is a list.

    :param record: the record.
    :param field: the name of the field.
    :param entry: the id of the entry; empty for a field that is no list.

    >>> article = RecordRef("blog", "articles", "first")
    >>> FieldRef(article, "cover").uri
    '/buckets/blog/collections/articles/records/first/attachments/cover'
    """

    record: RecordRef
    field: str = ATTRIBUTE
    entry: str = ""

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the widest to the narrowest: three for the field that all records have, four
        for another one, five for an entry."""
        field = (self.field, self.entry) if self.entry else (self.field,)
        return self.record.path if field == (ATTRIBUTE,) else (*self.record.path, *field)

    @property
    def is_nested(self) -> bool:
        """Whether its rows have a parent below that of the rows of the record."""
        return len(self.path) > len(self.record.path)

    @property
    def uri(self) -> str:
        """The URI that its link is stored with."""
        below = self.path[len(self.record.path) :]
        return "/".join((self.record.uri, "attachments", *below)) if below else self.record.uri

    @property
    def url_path(self) -> str:
        """Where its file is served, below the version prefix.

        >>> FieldRef(RecordRef("blog", "articles", "first")).url_path
        '/buckets/blog/collections/articles/records/first/attachment'
        """
        return self.uri if self.is_nested else f"{self.uri}/attachment"

    @classmethod
    def from_uri(cls, uri: str) -> "FieldRef | None":
        """Return the place whose link is stored with that URI, or None if there is none.

        >>> FieldRef.from_uri("/buckets/blog/collections/articles/records/first").field
        'attachment'
        """
        record = RecordRef.from_uri(uri)
        if record:
            return cls(record)
        match = _FIELD_URI.fullmatch(uri)
        if not match:
            return None
        return cls(RecordRef(*match.groups()[1:4]), match[5], match[6] or "")

    @classmethod
    def served_at(cls, location: str) -> "FieldRef | None":
        """Return the place whose file is served at that URL, or None if it is another URL.

        >>> ref = FieldRef(RecordRef("blog", "articles", "first"))
        >>> FieldRef.served_at(f"https://kinto.example/v1{ref.url_path}") == ref
        True
        >>> FieldRef.served_at("https://cdn.example/blog/articles/a.png")
        """
        match = _FILE_URL.fullmatch(location)
        if not match:
            return None
        *ids, field, entry = match.groups()
        record = RecordRef(*(unquote(part) for part in ids))
        return cls(record, field or ATTRIBUTE, entry or "")


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


Ref = FieldRef | MediaRef | UploadRef
"""The owner of a blob."""


def read_ref(uri: str) -> Ref:
    """Return the owner that has that URI.

    :raises ValueError: if no owner can have it.

    >>> read_ref("/media/basicauth:ab%2Fc/e3b0")
    MediaRef(owner='basicauth:ab/c', digest='e3b0')
    """
    field = FieldRef.from_uri(uri)
    if field:
        return field
    match uri.split("/"):
        case ["", "media", owner, digest]:
            return MediaRef(unquote(owner), digest)
        case ["", "uploads", upload_id]:
            return UploadRef(upload_id)
    raise ValueError(f"{uri!r} is not the URI of a record, a field, a media entry or an upload")
