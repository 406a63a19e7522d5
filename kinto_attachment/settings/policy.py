"""The policy of a bucket, collection or field: which files it accepts, and how they are stored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from mimetypes import guess_type
from typing import BinaryIO

from ..errors import ContentRefused, ExtensionRefused
from ..files.blob import Digest, Label, Source
from ..files.field import DEFAULT_FIELDS, Fields
from ..files.filename import checked_extension, extension_of
from ..files.key import KeyTemplate
from ..files.mimetype import (
    DEFAULT_MIMETYPE,
    SNIFF_BYTES,
    accept_mimetype,
    contradicts,
    is_disguised,
    sniff,
)


@dataclass(frozen=True)
class Policy:
    """What the settings say about the files of one bucket, collection or field.

    :param template: makes the keys of the files.
    :param keep_old_files: whether to keep the bytes of replaced and deleted attachments.
    :param extensions: the accepted extensions, in lowercase; empty for any.
    :param mimetypes: media types by extension, which override what clients say.
    :param max_size: the largest accepted file in bytes; 0 for no limit.
    :param check_content: whether to refuse files whose first bytes contradict their type.
    :param private: whether only clients that may read the record can get its file.
    :param fields: the fields of its records that have files.
    :param max_files: the most files of a field that is a list.
    """

    template: KeyTemplate
    keep_old_files: bool
    extensions: frozenset[str]
    mimetypes: Mapping[str, str]
    max_size: int
    check_content: bool
    private: bool
    fields: Fields
    max_files: int

    @property
    def has_default_fields(self) -> bool:
        """Whether records have the field ``attachment`` only, as they do without any setting."""
        return self.fields == DEFAULT_FIELDS

    def check_extension(self, filename: str) -> None:
        """Check that files with this extension are accepted.

        :raises ExtensionRefused: if they are not.
        """
        extension = checked_extension(filename)
        if self.extensions and extension not in self.extensions:
            raise ExtensionRefused(extension, self.extensions)

    def source(self, file: BinaryIO, filename: str, declared: str | None, digest: Digest) -> Source:
        """Return a received file with the media type that :meth:`mimetype` determines.

        :param file: the open file, at any position.
        :param declared: the media type that the client sent, if any.
        :param digest: the digest of the whole file.
        :raises ContentRefused: if the first bytes contradict the type, and ``check_content`` is
            set.
        """
        file.seek(0)
        label = self.label(filename, self.mimetype(filename, declared, file.read(SNIFF_BYTES)))
        return Source(file=file, size=digest.size, digest=digest.hexdigest(), **asdict(label))

    def label(self, filename: str, mimetype: str) -> Label:
        """Return how to store a file whose media type is known."""
        return Label(filename, mimetype, self.template.unique or self.template.shared, self.private)

    def mimetype(self, filename: str, declared: str | None, head: bytes) -> str:
        """Return the media type to store with a file.

        It is the first of these that is known: the operator's type for the extension, the type that
        the client sent, the usual type of the extension, and the type that the first bytes
        indicate. Markup with the type of an image, a font, audio, video or PDF is stored as
        ``application/octet-stream``.

        :param declared: the media type that the client sent, if any.
        :param head: the first :data:`SNIFF_BYTES` bytes of the file.
        :raises ContentRefused: if they contradict the type, and ``check_content`` is set.

        >>> from kinto_attachment.settings import read_settings
        >>> policy = read_settings({"attachment.storage": "memory"}).policy("blog", "articles")
        >>> policy.mimetype("a.png", None, b"..."), policy.mimetype("a.png", None, b"<html>")
        ('image/png', 'application/octet-stream')
        """
        mimetype = (
            self.mimetypes.get(extension_of(filename))
            or accept_mimetype(declared)
            or accept_mimetype(guess_type(f"file.{extension_of(filename)}")[0])
            or _signed_type(head)
        )
        if self.check_content and contradicts(mimetype, head):
            raise ContentRefused(mimetype, sniff(head))
        return DEFAULT_MIMETYPE if is_disguised(mimetype, head) else mimetype


def _signed_type(head: bytes) -> str:
    """Return the media type that the signature of the first bytes indicates. Text has no signature,
    and gets the default type."""
    found = sniff(head)
    return DEFAULT_MIMETYPE if found.startswith("text/") else found
