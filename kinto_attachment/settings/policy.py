"""What applies to the files of one bucket or collection."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from mimetypes import guess_type
from typing import BinaryIO

from ..errors import ContentRefused, FilenameRefused
from ..files.blob import Digest, Label, Source
from ..files.filename import extension_of
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
    """What applies to the attachments of one bucket or collection."""

    template: KeyTemplate
    keep_old_files: bool
    extensions: frozenset[str]
    mimetypes: Mapping[str, str]
    max_size: int
    check_content: bool
    private: bool

    def check_extension(self, filename: str) -> None:
        """:raises FilenameRefused: the extension is not among those allowed."""
        extension = filename.rpartition(".")[2].lower() if "." in filename else ""
        if self.extensions and extension not in self.extensions:
            raise FilenameRefused("File extension is not allowed.")

    def source(self, file: BinaryIO, filename: str, declared: str | None, digest: Digest) -> Source:
        """What was received, with the type that it is given; see :meth:`mimetype`.

        :param file: at its end or anywhere.
        :param declared: the type that came with it, if one did.
        :raises ContentRefused:
        """
        file.seek(0)
        label = self.label(filename, self.mimetype(filename, declared, file.read(SNIFF_BYTES)))
        return Source(file=file, size=digest.size, digest=digest.hexdigest(), **asdict(label))

    def label(self, filename: str, mimetype: str) -> Label:
        """What an object says of itself whose type is judged already."""
        return Label(filename, mimetype, self.template.unique or self.template.shared, self.private)

    def mimetype(self, filename: str, declared: str | None, head: bytes) -> str:
        """The type to store: the operator's for the extension, else the client's if it is
        one, else what the extension stands for, else what the bytes begin as.

        :param head: the first :data:`SNIFF_BYTES` bytes. Markup in disguise has no type.
        :raises ContentRefused: they contradict the type, and ``check_content`` is set.

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
    """What a signature says. Text has none: it may be anything."""
    found = sniff(head)
    return DEFAULT_MIMETYPE if found.startswith("text/") else found
