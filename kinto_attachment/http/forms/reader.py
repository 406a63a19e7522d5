"""The fields of a form, and its file.

The file is written to a spool, and is hashed and counted on the way. Text fields are kept in memory
and have a size limit.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from multipart import parse_options_header

from ...errors import (
    AttachmentMissing,
    BoundaryRefused,
    FieldRefused,
    FilenameRefused,
    MalformedForm,
    NotMultipart,
    TooLarge,
)
from ...files.blob import Digest
from ...files.filename import accept_filename
from ..requests import RequestBody, spooling
from ..text import codec_of, parse_json
from .parser import FormParser, Part
from .transfer_encoding import decoder_of

MAX_FIELD_BYTES = 1024 * 1024
"""Bytes of one text field."""

MAX_OVERHEAD_BYTES = 4 * 1024 * 1024
"""Bytes of a form besides the file: text fields, headers, and some room for unusual clients."""

# Any printable ASCII. RFC 2046 allows less, but the boundaries of some clients contain a "$"
# (WebTest).
_BOUNDARY = re.compile(r"[ -~]{0,199}[!-~]")


@dataclass
class Received:
    """A file that was received. The caller that gets it closes it.

    :param file: the spool, readable and seekable.
    :param filename: as the client named it, already accepted.
    :param declared_type: the ``Content-Type`` that the client declared, or None.
    :param digest: the size of the file, and its SHA-256.
    """

    file: BinaryIO
    filename: str
    declared_type: str | None
    digest: Digest = field(default_factory=Digest)

    def close(self) -> None:
        """Close the spool, even if the disk is full."""
        # Closing flushes the last bytes. If that fails they are lost, but nothing needs them now.
        with suppress(OSError):
            self.file.close()


@dataclass
class Form:
    """A form that was received: its text fields by their names, and its file."""

    fields: dict[str, str]
    file: Received

    def json_object(self, name: str) -> dict[str, Any] | None:
        """Return a text field as a JSON object, or None if the client did not send the field.

        :raises FieldRefused: if the field is not a JSON object, is nested too deeply, or contains a
            null character.
        """
        if name not in self.fields:
            return None
        value = parse_json(self.fields[name], name, name)
        if not isinstance(value, dict):
            raise FieldRefused(f"{name} is not a JSON object", name)
        return value


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

    :param spool: makes the file to receive into, see ``IStorage.spool``.
    :param text_fields: the names of the text fields that the form may have.
    :param file_field: the name of the field with the file.
    :param max_size: the largest accepted file in bytes; 0 for no limit.
    :param check_filename: raises :class:`~kinto_attachment.errors.FilenameRefused` if a filename is
        not acceptable. It is called before the bytes of the file are read.
    """

    def __init__(
        self,
        spool: Callable[[], BinaryIO],
        *,
        text_fields: tuple[str, ...] = ("data", "permissions"),
        file_field: str = "attachment",
        max_size: int = 0,
        check_filename: Callable[[str], None] = lambda filename: None,
    ):
        self._spool = spool
        self._text_fields = text_fields
        self._file_field = file_field
        self._max_size = max_size
        self._check_filename = check_filename
        self._texts: dict[str, tuple[bytearray, str]] = {}
        self._file: Received | None = None
        self._unknown: str | None = None
        self._chosen = True
        self._raw_size = 0
        """Bytes of the file as they were sent, which is more than its size if it is encoded."""

    def read(self, body: RequestBody, boundary: str) -> Form:
        """Read the whole body, and return the form. No file stays open after an error.

        :param body: the body of the request.
        :param boundary: what :func:`read_boundary` returned.
        :raises MalformedForm: if the form is broken, cut short, or too large besides its file.
        :raises AttachmentMissing: if it has no file.
        :raises FieldRefused: if a field is unknown, sent twice, sent as a file, too large, or not
            text; or if there is a second file.
        :raises FilenameRefused: if the filename is missing or not acceptable.
        :raises TooLarge: if the file is over ``max_size``.
        :raises StorageUnavailable: if the spool cannot be written.
        """
        try:
            self._read_parts(body, boundary)
            return self._form()
        except BaseException:
            if self._file:
                self._file.close()
            raise

    def _read_parts(self, body: RequestBody, boundary: str) -> None:
        parser = FormParser(boundary.encode())
        received = 0
        write: _Write = _ignore
        is_last = False
        while not is_last:
            chunk = body.read()
            is_last = not chunk
            received += len(chunk)
            for event in parser.parse(chunk):
                if isinstance(event, Part):
                    write = self._start(event)
                else:
                    write(event or b"", event is None)
            size = self._file.digest.size if self._file else 0
            # An encoded file is up to four times as long, and not more.
            if received - min(self._raw_size, 4 * size) > MAX_OVERHEAD_BYTES:
                self._refuse_unknown()
                limit = MAX_OVERHEAD_BYTES
                raise MalformedForm(f"The form has over {limit} bytes besides its file.")

    def _start(self, part: Part) -> "_Write":
        """Begin a part, and return the function that takes its bytes."""
        if part.name == self._file_field:
            return self._start_file(part)
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
        return _decoded(part, lambda chunk: _append(text, chunk, part.name), strict=False)

    def _start_file(self, part: Part) -> "_Write":
        if self._file:
            raise FieldRefused(f"Only one {self._file_field} is allowed.", self._file_field)
        try:
            filename = part.filename
            if filename == "":
                return self._nothing_chosen
            filename = accept_filename(filename)
            self._check_filename(filename)
        except FilenameRefused as error:
            error.field = self._file_field
            raise
        write = _decoded(part, self._write_file, strict=True)
        self._file = Received(self._spool(), filename, part.content_type)

        def write_raw(chunk: bytes, is_last: bool) -> None:
            self._raw_size += len(chunk)
            write(chunk, is_last)

        return write_raw

    def _nothing_chosen(self, chunk: bytes, is_last: bool) -> None:
        """Take the bytes of a file without a name. A browser sends such a file, without bytes, for
        an empty ``<input type="file">``.

        :raises FilenameRefused: if the file has bytes.
        """
        if chunk:
            raise FilenameRefused("Filename is required.", self._file_field)
        self._chosen = False

    def _write_file(self, chunk: bytes) -> None:
        file = self._file
        if self._max_size and file.digest.size + len(chunk) > self._max_size:
            # Count the remaining bytes without storing them, so that the error can state the size
            # of the file unless it is far too large.
            file.digest.size += len(chunk)
            if file.digest.size > self._max_size + MAX_OVERHEAD_BYTES:
                raise TooLarge(file.digest.size, self._max_size)
            return
        file.digest.update(chunk)
        with spooling():
            file.file.write(chunk)

    def _form(self) -> Form:
        if self._file and self._max_size and self._file.digest.size > self._max_size:
            raise TooLarge(self._file.digest.size, self._max_size)
        if not self._file:
            raise AttachmentMissing(self._file_field, chosen=self._chosen)
        self._refuse_unknown()
        with spooling():
            self._file.file.flush()
        return Form({name: _decode(name, *text) for name, text in self._texts.items()}, self._file)

    def _refuse_unknown(self) -> None:
        if self._unknown is not None:
            raise FieldRefused(f"{self._unknown!r} not in {self._text_fields}", self._unknown)


_Write = Callable[[bytes, bool], None]
"""Takes the bytes of a part, and is told at its end."""


def _ignore(chunk: bytes, is_last: bool) -> None:
    """Take the bytes of a part that the form should not have."""


def _decoded(part: Part, write: Callable[[bytes], None], strict: bool) -> _Write:
    """Return the function that takes the bytes of a part as they are sent, and writes them as they
    are meant.

    :raises FieldRefused: if the transfer encoding of the part is unknown.
    """
    decoder = decoder_of(part.transfer_encoding, part.name, strict)
    if not decoder:
        return lambda chunk, is_last: write(chunk)
    return lambda chunk, is_last: write(decoder.decode(chunk, is_last))


def _append(text: bytearray, chunk: bytes, name: str) -> None:
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
