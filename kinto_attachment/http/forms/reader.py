"""The fields of a form, and its files.

Each file is written to one that the caller opens, and is hashed and counted on the way. Text fields
are kept in memory and have a size limit.
"""

import re
import resource
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import BoundedSemaphore
from typing import Any, BinaryIO

from multipart import parse_options_header

from ...errors import (
    AttachmentMissing,
    BoundaryRefused,
    FieldRefused,
    FilenameRefused,
    MalformedForm,
    NotMultipart,
    StorageUnavailable,
    TooLarge,
    TooManyFiles,
)
from ...files.blob import Digest
from ...files.filename import accept_filename
from ..requests import RequestBody, spooling
from ..text import codec_of, read_json_object
from .parser import FormParser, Part
from .transfer_encoding import decoder_of

MAX_FIELD_BYTES = 1024 * 1024
"""Bytes of one text field."""

MAX_OVERHEAD_BYTES = 4 * 1024 * 1024
"""Bytes of a form besides its files: text fields, headers, and some room for unusual clients."""


def _further_spools(limit: int) -> int:
    """Return how many further files a process may receive at once.

    :param limit: how many files it may have open; ``RLIM_INFINITY`` if there is no limit.

    >>> _further_spools(1024), _further_spools(resource.RLIM_INFINITY)
    (256, 4096)
    """
    return 4096 if limit == resource.RLIM_INFINITY else max(1, limit // 4)


_FURTHER_SPOOLS = BoundedSemaphore(_further_spools(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
"""Limits the open files of this process that receive further files of forms, so that it never runs
out of them. The first file of a form is always received."""

# Any printable ASCII. RFC 2046 allows less, but the boundaries of some clients contain a "$"
# (WebTest).
_BOUNDARY = re.compile(r"[ -~]{0,199}[!-~]")


@dataclass(frozen=True)
class FileField:
    """A field of a form that has files.

    :param name: how errors name it.
    :param most: how many files it may have.
    :param max_size: the largest accepted file in bytes; 0 for no limit.
    :param check_filename: raises :class:`~kinto_attachment.errors.FilenameRefused` if a filename is
        not acceptable. It is called before the bytes of the file are read.
    """

    name: str
    most: int = 1
    max_size: int = 0
    check_filename: Callable[[str], None] = lambda filename: None


@dataclass
class Received:
    """A file that was received. The caller that gets it closes it.

    :param field: the field of the form.
    :param filename: as the client named it, already accepted.
    :param declared_type: the ``Content-Type`` that the client declared, or None.
    :param digest: the size of the file so far, and its SHA-256.
    :ivar file: what it is received into, readable and seekable once all bytes are there.
    :ivar raw_size: its bytes as they were sent, which are more than its size if it is encoded.
    """

    field: FileField
    filename: str
    declared_type: str | None
    digest: Digest = field(default_factory=Digest)
    file: BinaryIO = field(init=False)
    raw_size: int = 0
    is_further: bool = False

    def close(self) -> None:
        """Close the file, even if the disk is full. Idempotent."""
        # Closing flushes the last bytes. If that fails they are lost, but nothing needs them now.
        with suppress(OSError):
            self.file.close()
        if self.is_further:
            self.is_further = False
            _FURTHER_SPOOLS.release()


@dataclass
class Form:
    """A form that was received: its text fields by their names, and its files in their order."""

    fields: dict[str, str]
    files: list[Received]

    @property
    def file(self) -> Received:
        """The only file."""
        return self.files[0]

    def close(self) -> None:
        """Close all files. Idempotent."""
        for file in self.files:
            file.close()

    def json_object(self, name: str) -> dict[str, Any] | None:
        """Return a text field as a JSON object; see
        :func:`~kinto_attachment.http.text.read_json_object`."""
        return read_json_object(self.fields, name)


def read_boundary(content_type: str) -> str:
    """Return the boundary in a ``Content-Type`` header.

    :raises NotMultipart: if the type is not ``multipart/form-data``.
    :raises BoundaryRefused: if there is no boundary, or if it is longer than 200 characters or has
        other characters than printable ASCII.

    >>> read_boundary('multipart/form-data; boundary="abc"')
    'abc'
    """
    mimetype, options = parse_options_header(content_type)
    if mimetype != "multipart/form-data":
        raise NotMultipart()
    boundary = options.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise BoundaryRefused(boundary)
    return boundary


class FormReader:
    """The reader of one form.

    :param open_file: returns the file to receive a file of the form into, before its first byte. It
        is flushed after its last byte.
    :param file_fields: the fields that may have files, by the names of their parts.
    :param text_fields: the names of the text fields that the form may have.
    :param several: whether the form is for several fields, and not for one.
    :param on_chunk: is called whenever bytes have arrived.
    """

    def __init__(
        self,
        open_file: Callable[[Received], BinaryIO],
        file_fields: Mapping[str, FileField],
        *,
        text_fields: tuple[str, ...] = ("data", "permissions"),
        several: bool = False,
        on_chunk: Callable[[], None] = lambda: None,
    ):
        self._open_file = open_file
        self._on_chunk = on_chunk
        self._file_fields = file_fields
        self._text_fields = text_fields
        self._several = several
        self._texts: dict[str, tuple[bytearray, str]] = {}
        self._files: list[Received] = []
        self._unknown: str | None = None
        self._chosen = True

    def read(self, body: RequestBody, boundary: str) -> Form:
        """Read the whole body, and return the form. No file stays open after an error.

        :param body: the body of the request.
        :param boundary: what :func:`read_boundary` returned.
        :raises MalformedForm: if the form is broken, cut short, or too large besides its file.
        :raises AttachmentMissing: if it has no file.
        :raises FieldRefused: if a field is unknown, sent twice, sent as a file, too large, or not
            text; or if there is a second file where one is allowed.
        :raises TooManyFiles: if a list has more files than it may.
        :raises FilenameRefused: if a filename is missing or not acceptable.
        :raises TooLarge: if a file is over ``max_size``.
        :raises StorageUnavailable: if a file cannot be written.
        """
        try:
            self._read_parts(body, boundary)
            return self._form()
        except BaseException:
            for file in self._files:
                file.close()
            raise

    def _read_parts(self, body: RequestBody, boundary: str) -> None:
        most = sum(field.most for field in {*self._file_fields.values()})
        parser = FormParser(boundary.encode(), most + len(self._text_fields))
        received = 0
        write: _Write = _ignore
        is_last = False
        while not is_last:
            chunk = body.read()
            self._on_chunk()
            is_last = not chunk
            received += len(chunk)
            for event in parser.parse(chunk):
                if isinstance(event, Part):
                    write = self._start(event)
                else:
                    write(event or b"", event is None)
            # An encoded file is up to four times as long, and not more.
            if received - _size_of(self._files) > MAX_OVERHEAD_BYTES:
                self._refuse_unknown()
                limit = MAX_OVERHEAD_BYTES
                raise MalformedForm(f"The form has over {limit} bytes besides its file.")

    def _start(self, part: Part) -> "_Write":
        """Begin a part, and return the function that takes its bytes."""
        if part.name in self._file_fields:
            return self._start_file(self._file_fields[part.name], part)
        if part.name not in self._text_fields:
            # Refused only after the rest was read, because a missing file is reported first.
            self._unknown = self._unknown or part.name
            return _ignore
        if part.filename:
            raise FieldRefused(
                f"{part.name!r} field should be passed as form data, not files", part.name
            )
        if part.name in self._texts:
            raise FieldRefused(f"{part.name!r} is sent twice: send it once", part.name)
        text = bytearray()
        self._texts[part.name] = (text, part.charset)
        return _decoded(part, part.name, partial(_append, text, part.name), strict=False)

    def _start_file(self, field: FileField, part: Part) -> "_Write":
        if sum(file.field is field for file in self._files) == field.most:
            if field.most == 1:
                raise FieldRefused(f"Only one {field.name} is allowed.", field.name)
            raise TooManyFiles(field.name, field.most)
        try:
            filename = part.filename
            if filename == "":
                return self._nothing_chosen(field)
            filename = accept_filename(filename)
            field.check_filename(filename)
        except FilenameRefused as error:
            error.field = field.name
            raise
        file = self._open(field, filename, part.content_type)
        write = _decoded(part, field.name, lambda chunk: _write_file(file, chunk), strict=True)

        def write_raw(chunk: bytes, is_last: bool) -> None:
            file.raw_size += len(chunk)
            write(chunk, is_last)
            if is_last:
                _check_size(file)

        return write_raw

    def _open(self, field: FileField, filename: str, content_type: str | None) -> Received:
        """Return the file to receive the next part into.

        :raises StorageUnavailable: if forms that are being received have too many files open.
        """
        is_further = bool(self._files)
        if is_further and not _FURTHER_SPOOLS.acquire(blocking=False):
            raise StorageUnavailable("spool", "too many files are being received at once")
        received = Received(field, filename, content_type, is_further=is_further)
        try:
            received.file = self._open_file(received)
        except BaseException:
            if is_further:
                _FURTHER_SPOOLS.release()
            raise
        self._files.append(received)
        return received

    def _nothing_chosen(self, field: FileField) -> "_Write":
        """Return the function that takes the bytes of a file without a name. A browser sends such a
        file, without bytes, for an empty ``<input type="file">``."""

        def write(chunk: bytes, is_last: bool) -> None:
            if chunk:
                raise FilenameRefused("Filename is required.", field.name)
            self._chosen = False

        return write

    def _form(self) -> Form:
        if self._several:
            self._refuse_unknown()
        names = [field.name for field in dict.fromkeys(self._file_fields.values())]
        if not self._files and self._several:
            reason = f"The form has no file. Its fields for files are: {', '.join(names)}."
            raise FieldRefused(reason, "attachments")
        if not self._files:
            raise AttachmentMissing(names[0], self._chosen)
        self._refuse_unknown()
        with spooling():
            for file in self._files:
                file.file.flush()
        texts = {name: _decode(name, *text) for name, text in self._texts.items()}
        return Form(texts, self._files)

    def _refuse_unknown(self) -> None:
        if self._unknown is not None:
            known = (*self._file_fields, *self._text_fields) if self._several else self._text_fields
            raise FieldRefused(f"{self._unknown!r} not in {known}", self._unknown)


_Write = Callable[[bytes, bool], None]
"""Takes the bytes of a part, and is told at its end."""


def _size_of(files: list[Received]) -> int:
    """Return how many bytes of a form are those of its files."""
    return sum(min(file.raw_size, 4 * file.digest.size) for file in files)


def _write_file(file: Received, chunk: bytes) -> None:
    limit = file.field.max_size
    if limit and file.digest.size + len(chunk) > limit:
        # Count the remaining bytes without storing them, so that the error can state the size of
        # the file unless it is far too large.
        file.digest.size += len(chunk)
        if file.digest.size > limit + MAX_OVERHEAD_BYTES:
            _check_size(file)
        return
    file.digest.update(chunk)
    with spooling():
        file.file.write(chunk)


def _check_size(file: Received) -> None:
    """Refuse a file that is too large.

    :raises TooLarge: if it is.
    """
    limit = file.field.max_size
    if limit and file.digest.size > limit:
        error = TooLarge(file.digest.size, limit)
        error.field = file.field.name
        raise error


def _ignore(chunk: bytes, is_last: bool) -> None:
    """Take the bytes of a part that the form should not have."""


def _decoded(part: Part, field: str, write: Callable[[bytes], None], strict: bool) -> _Write:
    """Return the function that takes the bytes of a part as they are sent, and writes them as they
    are meant.

    :param field: the name of its field, for errors. A part may be called otherwise.
    :raises FieldRefused: if the transfer encoding of the part is unknown.
    """
    decoder = decoder_of(part.transfer_encoding, field, strict)
    if not decoder:
        return lambda chunk, is_last: write(chunk)
    return lambda chunk, is_last: write(decoder.decode(chunk, is_last))


def _append(text: bytearray, name: str, chunk: bytes) -> None:
    text += chunk
    if len(text) > MAX_FIELD_BYTES:
        raise FieldRefused(f"{name!r} is over {MAX_FIELD_BYTES} bytes, the limit of a field", name)


def _decode(name: str, text: bytearray, charset: str) -> str:
    try:
        return text.decode(codec_of(charset))
    except LookupError as error:
        reason = f"{name!r} has an unknown charset ({charset[:100]}): use UTF-8"
        raise FieldRefused(reason, name) from error
    except (UnicodeError, ValueError) as error:
        raise FieldRefused(f"{name!r} is not {charset[:100]} text", name) from error
