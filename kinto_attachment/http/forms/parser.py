"""The parts of a form, from chunks of any size.

Clients that are not browsers write forms that RFC 2046 does not allow, or allows and few do: line
breaks without carriage return, white space after a boundary, a wrong ``Content-Length`` in a part
(which RFC 7578, section 4.8, deprecates), a part that is empty down to its last line break. Such
forms are read here. Bytes of a file are never guessed: the line break before a boundary, which does
not belong to the file, is the one that ends the headers of the same part.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote_to_bytes

from multipart import content_disposition_unquote, parse_options_header

from ...errors import FilenameRefused, MalformedForm
from ..text import FILENAME_CHARSETS, codec_of

MAX_HEADER_BYTES = 32 * 1024
"""Bytes of the headers of one part, or of white space after a boundary."""

MAX_PARTS = 64
"""Parts of one form."""

# A parameter of a header, RFC 9110, section 5.6.6.
_PARAMETER = re.compile(r';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*)')
_BLANK_LINE = re.compile(rb"(\r?\n)\r?\n")
_FOLDED = re.compile(r"\r?\n[ \t]+")
# filename*, filename*0, filename*0*
_EXTENDED = re.compile(r"filename\*(?:(\d{1,3})(\*)?)?", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """The headers of one part.

    :param headers: their values by their names in lowercase.

    >>> Part({"content-disposition": 'form-data; name="data"'}).name
    'data'
    """

    headers: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the field, or nothing."""
        return self._disposition[1].get("name", "")

    @property
    def is_form_data(self) -> bool:
        """Whether the part says that it belongs to a form."""
        return self._disposition[0] == "form-data"

    @property
    def has_filename(self) -> bool:
        """Whether the part is a file, even one without a name."""
        return any(option.partition("*")[0] == "filename" for option in self._disposition[1])

    @property
    def filename(self) -> str | None:
        """The filename, or None if there is none.

        RFC 7578 forbids ``filename*`` in forms (RFC 5987), but urllib3 before version 2 and
        Python's email package send it, long ones in several parameters (RFC 2231). It takes
        precedence over ``filename``, unless it cannot be decoded.

        :raises FilenameRefused: if ``filename*`` cannot be decoded, and there is no other.
        """
        plain = self._disposition[1].get("filename")
        try:
            extended = _extended_filename(self.headers.get("content-disposition", ""))
        except (LookupError, UnicodeError, ValueError) as error:
            if plain:
                return plain
            raise FilenameRefused(f"Filename cannot be decoded ({error}).") from error
        return plain if extended is None else extended

    @property
    def content_type(self) -> str | None:
        """The media type in lowercase and without parameters, or None."""
        return self._content_type[0] or None

    @property
    def charset(self) -> str:
        """The charset of the text."""
        return self._content_type[1].get("charset", "utf-8")

    @property
    def transfer_encoding(self) -> str:
        """The encoding of the bytes, in lowercase; nothing if they are as they are."""
        return self.headers.get("content-transfer-encoding", "").strip().lower()

    @cached_property
    def _disposition(self) -> tuple[str, dict[str, str]]:
        value = self.headers.get("content-disposition", "")
        return parse_options_header(value, unquote=content_disposition_unquote)

    @cached_property
    def _content_type(self) -> tuple[str, dict[str, str]]:
        return parse_options_header(self.headers.get("content-type", ""))


def _extended_filename(disposition: str) -> str | None:
    """Return the filename from ``filename*``, or None if there is none.

    :raises LookupError: if its charset is unknown.
    :raises ValueError: if it is malformed.
    """
    pieces: dict[int, tuple[str, bool]] = {}
    for name, value in _PARAMETER.findall(disposition):
        match = _EXTENDED.fullmatch(name)
        if match:
            number, star = match.groups()
            unquoted = value.strip(" \t")
            if unquoted.startswith('"'):
                unquoted = re.sub(r"\\(.)", r"\1", unquoted[1:-1])
            pieces[int(number or 0)] = (unquoted, bool(star or number is None))
    if not pieces:
        return None
    charset, content = "utf-8", b""
    for expected, (number, (value, encoded)) in enumerate(sorted(pieces.items())):
        if number != expected:
            raise ValueError(f"filename*{expected} is missing")
        if encoded and number == 0:
            if value.count("'") < 2:
                raise ValueError("the charset is missing")
            charset, _, value = value.partition("'")
            value = value.partition("'")[2]
        content += unquote_to_bytes(value) if encoded else value.encode()
    return content.decode(codec_of(charset or "utf-8", FILENAME_CHARSETS))


Event = Part | bytes | None
"""A part begins, some of its bytes, or it ends."""


class FormParser:
    """A parser that takes the chunks of a form one by one.

    ::

        parser = FormParser(b"abc")
        for event in parser.parse(chunk):
            ...  # a Part begins, bytes of it, or None at its end
        parser.close()

    :param boundary: as in ``Content-Type``.
    """

    def __init__(self, boundary: bytes):
        self._boundary = b"--" + boundary
        # As if the form began with a line break, because a boundary follows one.
        self._buffer = b"\n"
        self._parts = 0
        self._delimiter = b""
        self._searched = 0
        self._step: Callable[[], Iterable[Event]] = self._preamble

    def parse(self, chunk: bytes) -> Iterator[Event]:
        """Yield each part as it begins, then its bytes in pieces, then None at its end.

        :raises MalformedForm: if the form is broken.
        """
        self._buffer = self._buffer + chunk if self._buffer else chunk
        step = None
        while step != self._step:
            step = self._step
            yield from step()

    def close(self) -> None:
        """Check that the form is complete.

        :raises MalformedForm: if it is not.
        """
        if self._step != self._epilogue:
            raise MalformedForm("Invalid multipart form: the last boundary is missing")

    # Each step takes what it can from the buffer. When it is done, it sets the next one.

    def _preamble(self) -> Iterable[Event]:
        """Skip what comes before the first boundary."""
        buffer, start = self._buffer, 0
        while (start := buffer.find(self._boundary, start)) >= 0:
            end = self._end_of_boundary(start + len(self._boundary))
            if end is None:
                break
            if end and buffer[start - 1 : start] == b"\n":
                self._begin_part(end)
                return ()
            start += 1
        # The boundary may begin in this chunk and end in the next.
        kept = start - 1 if start > 0 else len(buffer) - len(self._boundary)
        self._buffer = buffer[max(0, kept) :]
        return ()

    def _headers(self) -> Iterable[Event]:
        """Read the headers of a part, up to the blank line."""
        buffer = self._buffer
        blank_line = _BLANK_LINE.search(buffer, max(0, self._searched - 3))
        if (blank_line.start() if blank_line else len(buffer)) > MAX_HEADER_BYTES:
            reason = f"a part has over {MAX_HEADER_BYTES} bytes of headers"
            raise MalformedForm(f"Invalid multipart form: {reason}")
        if not blank_line:
            self._searched = len(buffer)
            return
        yield _part(buffer[: blank_line.start()])
        line_break = blank_line.group(1)
        self._delimiter = line_break + self._boundary
        self._buffer = buffer[blank_line.end() :]
        self._step = self._body
        if self._boundary.startswith(self._buffer[: len(self._boundary)]):
            # The part may be empty, so that the blank line is also the line break of a boundary.
            self._buffer = line_break + self._buffer
            self._step = self._first_bytes

    def _first_bytes(self) -> Iterable[Event]:
        """Find out whether the part is empty. The buffer begins with the blank line."""
        buffer, delimiter = self._buffer, self._delimiter
        if delimiter.startswith(buffer):
            return
        if buffer.startswith(delimiter):
            end = self._end_of_boundary(len(delimiter))
            if end is None:
                return
            if end:
                yield None
                self._begin_part(end)
                return
        self._buffer = buffer[len(delimiter) - len(self._boundary) :]
        self._step = self._body

    def _body(self) -> Iterable[Event]:
        """Pass on the bytes of a part, up to the next boundary."""
        buffer, delimiter, start = self._buffer, self._delimiter, 0
        while (found := buffer.find(delimiter, start)) >= 0:
            end = self._end_of_boundary(found + len(delimiter))
            if end is None:
                break
            if end:
                if found:
                    yield buffer[:found]
                yield None
                self._begin_part(end)
                return
            start = found + 1
        if found < 0:
            # The boundary may begin in this chunk and end in the next.
            found = buffer.rfind(delimiter[:1], max(start, len(buffer) - len(delimiter) + 1))
            if found < 0 or not delimiter.startswith(buffer[found:]):
                found = len(buffer)
        if found:
            yield buffer[:found]
        self._buffer = buffer[found:]

    def _epilogue(self) -> Iterable[Event]:
        """Ignore what comes after the last boundary."""
        self._buffer = b""
        return ()

    def _end_of_boundary(self, start: int) -> int | None:
        """Look at what follows the text of a boundary.

        :returns: where the next line starts, or -1 if this is the last boundary; 0 if it is not a
            boundary but bytes of a file; None if more of the form is needed to tell.
        """
        rest = self._buffer[start : start + MAX_HEADER_BYTES + 2]
        if rest.startswith(b"--"):
            return -1
        line = rest.lstrip(b" \t")
        if line.startswith(b"\n"):
            return start + len(rest) - len(line) + 1
        if line.startswith(b"\r\n"):
            return start + len(rest) - len(line) + 2
        if len(rest) - len(line) > MAX_HEADER_BYTES:
            return 0
        return None if line in (b"", b"\r") or rest == b"-" else 0

    def _begin_part(self, start: int) -> None:
        """Go on behind a boundary; see :meth:`_end_of_boundary`."""
        if start < 0:
            self._step = self._epilogue
            return
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise MalformedForm(f"Invalid multipart form: it has over {MAX_PARTS} parts")
        self._buffer, self._searched = self._buffer[start:], 0
        self._step = self._headers


def _part(headers: bytes) -> Part:
    """Return the part with these headers.

    :raises MalformedForm: if they are not headers, or not those of a part of a form.
    """
    try:
        text = _FOLDED.sub(" ", headers.decode())
    except UnicodeDecodeError as error:
        raise MalformedForm("Invalid multipart form: headers of a part are not UTF-8") from error
    found: dict[str, str] = {}
    for line in text.splitlines() if text else ():
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[!#-'*+.0-9A-Z^-z|~-]+", name.strip()):
            raise MalformedForm(f"Invalid multipart form: {line[:100]!r} is not a header")
        found.setdefault(name.strip().lower(), value.strip())
    part = Part(found)
    if not part.is_form_data:
        reason = "a part has no Content-Disposition: form-data"
        raise MalformedForm(f"Invalid multipart form: {reason}")
    return part
