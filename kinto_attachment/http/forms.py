"""``multipart/form-data`` off the wire, in one pass (RFC 7578).

The file goes to a spool as it comes, hashed, counted and limited on the way; text fields are
kept, and capped.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import HeaderParseError
from email.message import Message
from typing import Any, BinaryIO

from kinto.core.resource import has_null_character
from kinto.core.utils import json
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from ..errors import (
    AttachmentMissing,
    FieldRefused,
    FilenameRefused,
    MalformedForm,
    NotMultipart,
    TooLarge,
)
from ..files.blob import Digest
from ..files.filename import accept_filename
from .requests import RequestBody, spooling

MAX_FIELD_BYTES = 1024 * 1024
"""Bytes of one text field."""

MAX_OVERHEAD_BYTES = 4 * 1024 * 1024
"""Bytes of a form that are not the file: both fields, headers, and room for quirks."""

MAX_HEADER_BYTES = 32 * 1024

MAX_DEPTH = 200
"""Levels of a JSON object. Kinto's own code is recursive, and fails somewhat above."""

# Any printable ASCII: more than RFC 2046 allows, as clients there are (WebTest) have a "$" in it.
_BOUNDARY = re.compile(r"[ -~]{0,199}[!-~]")


@dataclass
class Received:
    """The file of a form, spooled: whoever receives it closes it."""

    file: BinaryIO
    filename: str
    declared_type: str | None
    digest: Digest = field(default_factory=Digest)

    def close(self) -> None:
        # Bytes that a full disk did not take are not wanted any more.
        with suppress(OSError):
            self.file.close()


@dataclass
class Form:
    """A whole form: its text fields, and its file."""

    fields: dict[str, str]
    file: Received

    def json_object(self, name: str) -> dict[str, Any] | None:
        """The field as a JSON object, or None when it was not sent. It is read by the parser
        that Kinto reads its bodies with.

        :raises FieldRefused: it is not one.
        """
        if name not in self.fields:
            return None
        try:
            value = json.loads(self.fields[name])
        except (ValueError, RecursionError) as error:
            raise FieldRefused(f"{name} is not valid JSON ({error})", name) from error
        if not isinstance(value, dict):
            raise FieldRefused(f"{name} is not a JSON object", name)
        if _is_deeper_than(MAX_DEPTH, value):
            raise FieldRefused(f"{name} is nested too deeply", name)
        if has_null_character(value):  # which PostgreSQL cannot store
            raise FieldRefused(f"{name} contains a null character", name)
        return value


def read_boundary(content_type: str) -> str:
    """The boundary in a ``Content-Type`` header.

    :raises NotMultipart: it is another type.
    :raises MalformedForm: it has no boundary, or one that is no text.

    >>> read_boundary('multipart/form-data; boundary="abc"')
    'abc'
    """
    mimetype, options = parse_options_header(content_type)
    if mimetype != "multipart/form-data":
        raise NotMultipart()
    boundary = options.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedForm(f"Invalid boundary in multipart form: {boundary[:100]!r}", "boundary")
    return boundary


class FormReader:
    """Reads one form.

    :param spool: makes the file to receive into, see ``IStorage.spool``.
    :param text_fields: names of the text fields that may come along with the file.
    :param file_field: the name of the file's.
    :param max_size: largest file in bytes, 0 for any.
    :param check_filename: raises for names that are not wanted, before their bytes come.
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

    def read(self, body: RequestBody, boundary: str) -> Form:
        """All of the body.

        :raises Refused: one of its kinds, for each way a form can be wrong; nothing stays open.
        :raises StorageUnavailable: the spool takes no more.
        """
        try:
            self._read_parts(body, boundary)
            return self._form()
        except BaseException:
            if self._file:
                self._file.close()
            raise

    def _read_parts(self, body: RequestBody, boundary: str) -> None:
        # Not strict: that refuses the line break after the last boundary, when it comes in a
        # chunk of its own.
        limits = {"max_header_size": MAX_HEADER_BYTES, "max_segment_count": 64}
        parser = PushMultipartParser(boundary, **limits)
        received = 0
        write: Callable[[bytes], None] = bytes
        try:
            with parser:
                while chunk := body.read():
                    received += len(chunk)
                    for event in parser.parse(chunk):
                        if isinstance(event, MultipartSegment):
                            write = self._start(event)
                        elif event is not None:
                            write(event)
                    size = self._file.digest.size if self._file else 0
                    if received - size > MAX_OVERHEAD_BYTES:
                        self._refuse_unknown()
                        limit = MAX_OVERHEAD_BYTES
                        raise MalformedForm(f"More than {limit} bytes beside the file.")
        except MultipartError as error:
            raise MalformedForm(f"Invalid multipart form: {error}") from error

    def _start(self, part: MultipartSegment) -> Callable[[bytes], None]:
        """What to do with the bytes of the part that begins."""
        if part.name == self._file_field:
            return self._start_file(part)
        if part.name not in self._text_fields:
            self._unknown = self._unknown or part.name or ""
            return len
        if part.filename is not None:
            raise FieldRefused(
                f"{part.name!r} field should be passed as form data, not files", part.name
            )
        if part.name in self._texts:
            raise FieldRefused(f"{part.name!r} is there twice", part.name)
        text = bytearray()
        self._texts[part.name] = (text, part.charset or "utf-8")
        return lambda chunk: _append(text, chunk, part.name)

    def _start_file(self, part: MultipartSegment) -> Callable[[bytes], None]:
        if self._file:
            raise FieldRefused(f"Only one {self._file_field} is allowed.", self._file_field)
        try:
            filename = accept_filename(_filename(part))
            self._check_filename(filename)
        except FilenameRefused as error:
            raise FilenameRefused(error.reason, self._file_field) from error
        self._file = Received(self._spool(), filename, part.content_type)
        return self._write_file

    def _write_file(self, chunk: bytes) -> None:
        file = self._file
        if self._max_size and file.digest.size + len(chunk) > self._max_size:
            # Counted on, so that the refusal can name the size.
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
            raise AttachmentMissing(self._file_field)
        self._refuse_unknown()
        with spooling():
            self._file.file.flush()
        return Form({name: _decode(name, *text) for name, text in self._texts.items()}, self._file)

    def _refuse_unknown(self) -> None:
        if self._unknown is not None:
            raise FieldRefused(f"{self._unknown!r} not in {self._text_fields}", self._unknown)


def _is_deeper_than(depth: int, value: Any) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
    return bool(level)


def _append(text: bytearray, chunk: bytes, name: str) -> None:
    text += chunk
    if len(text) > MAX_FIELD_BYTES:
        raise FieldRefused(f"{name!r} is over {MAX_FIELD_BYTES} bytes", name)


def _decode(name: str, text: bytearray, charset: str) -> str:
    try:
        return text.decode(charset)
    except LookupError as error:
        raise FieldRefused(f"{name!r} has an unknown charset ({charset})", name) from error
    except (UnicodeError, ValueError) as error:
        raise FieldRefused(f"{name!r} is not {charset} text", name) from error


def _filename(part: MultipartSegment) -> str | None:
    """The filename, from ``filename*`` when the client sent that (RFC 5987).

    RFC 7578 forbids it in forms; urllib3 before 2 sends it all the same.
    """
    header = dict(part.headerlist)["Content-Disposition"]
    if "filename*" not in header.lower():
        return part.filename
    message = Message()
    message["Content-Disposition"] = header
    try:
        for name, value in message.get_params(header="content-disposition"):
            if name.lower() == "filename" and isinstance(value, tuple):
                charset, _, encoded = value
                return encoded.encode("latin-1").decode(charset or "utf-8")
    except (LookupError, UnicodeError, HeaderParseError, ValueError) as error:
        raise FilenameRefused(f"Filename cannot be decoded ({error}).") from error
    return part.filename
