"""The parts of a form, from chunks of any size.

Clients that are not browsers write forms that RFC 2046 does not allow, or allows and few do: line
breaks without carriage return, white space after a boundary, a wrong ``Content-Length`` in a part
(which RFC 7578, section 4.8, deprecates), a part that is empty down to its last line break. Such
forms are read here. The line break before a boundary does not belong to the file: it is a line feed
alone where the boundary itself ends with one.
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
"""Bytes of the headers of one part."""

MAX_BLANKS = 256
"""Spaces and tabs after a boundary."""

MAX_PARTS = 64
"""Parts of one form, unless it may have more files."""

# A parameter of a header, RFC 9110, section 5.6.6.
_PARAMETER = re.compile(r';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*)')
_BLANK_LINE = re.compile(rb"\r?\n(\r?\n)")
_BLANKS = rb"[ \t]{0,%d}" % MAX_BLANKS
_FOLDED = re.compile(r"\r?\n[ \t]+")
_BAD_QUOTE = re.compile("%(?![0-9A-Fa-f]{2})")
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
        return extended or plain

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
        value = self.headers.get("content-transfer-encoding", "")
        return value.partition(";")[0].strip().lower()

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
        if encoded and _BAD_QUOTE.search(value):
            raise ValueError("a percent sign is not followed by two digits")
        content += unquote_to_bytes(value) if encoded else value.encode()
    return content.decode(codec_of(charset or "utf-8", FILENAME_CHARSETS))


Event = Part | bytes | None
"""A part begins, some of its bytes, or it ends."""


class FormParser:
    """A parser that takes the chunks of a form one by one, and an empty one at the end.

    ::

        parser = FormParser(b"abc")
        for event in parser.parse(chunk):
            ...  # a Part begins, bytes of it, or None at its end

    :param boundary: as in ``Content-Type``.
    :param parts: how many parts the form may have, if these are more than :data:`MAX_PARTS`.
    """

    def __init__(self, boundary: bytes, parts: int = 0):
        self._most_parts = max(parts, MAX_PARTS)
        self._boundary = b"\n--" + boundary
        line = re.escape(self._boundary) + rb"(--)?" + _BLANKS
        self._line = re.compile(line + rb"(\r?\n)")
        self._last_line = re.compile(line + rb"()\Z")
        self._cut_line = re.compile(re.escape(self._boundary) + rb"-{0,2}" + _BLANKS + rb"\r?\Z")
        # As if the form began with a line break, because a boundary follows one.
        self._buffer = b"\n"
        self._parts = 0
        self._line_break = b""
        self._searched = 0
        self._is_last = False
        self._step: Callable[[], Iterable[Event]] = self._preamble

    def parse(self, chunk: bytes) -> Iterator[Event]:
        """Yield each part as it begins, then its bytes in pieces, then None at its end.

        :param chunk: the next bytes; empty at the end of the form.
        :raises MalformedForm: if the form is broken, or ends too early.
        """
        self._is_last = not chunk
        self._buffer = self._buffer + chunk if self._buffer else chunk
        step = None
        while step != self._step:
            step = self._step
            yield from step()
        if self._is_last and self._step != self._epilogue:
            raise MalformedForm("Invalid multipart form: the last boundary is missing")

    # Each step takes what it can from the buffer. When it is done, it sets the next one.

    def _preamble(self) -> Iterable[Event]:
        """Skip what comes before the first boundary."""
        found = self._find_line()
        if found:
            self._begin_part(found)
        else:
            self._buffer = self._buffer[self._cut() :]
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
        self._line_break = blank_line.group(1)
        # A part may be empty, so that the blank line is also the line break of a boundary.
        self._buffer = buffer[blank_line.start(1) :]
        self._step = self._first_bytes

    def _first_bytes(self) -> Iterable[Event]:
        """Find out whether the part is empty. The buffer begins with the blank line."""
        line_break = len(self._line_break)
        found = self._find_line()
        if found and found.start() < line_break:
            yield None
            self._begin_part(found)
        elif self._is_last or self._cut() >= line_break:
            self._buffer = self._buffer[line_break:]
            self._step = self._body

    def _body(self) -> Iterable[Event]:
        """Pass on the bytes of a part, up to the next boundary."""
        buffer, found = self._buffer, self._find_line()
        end = self._end_of_part(found) if found else self._cut()
        if end:
            yield buffer[:end]
        if found:
            yield None
            self._begin_part(found)
        else:
            self._buffer = buffer[end:]

    def _epilogue(self) -> Iterable[Event]:
        """Ignore what comes after the last boundary."""
        self._buffer = b""
        return ()

    def _find_line(self) -> re.Match | None:
        """Find the next line that is a boundary. The match begins with the line feed before it."""
        first = self._buffer.find(self._boundary)
        if first < 0:
            return None
        found = self._line.search(self._buffer, first)
        return found or (self._last_line.search(self._buffer, first) if self._is_last else None)

    def _end_of_part(self, line: re.Match) -> int:
        """Return where the bytes before a boundary end. The line break before a boundary is the
        same as the one after it or, at the very end, as those of the headers."""
        end = line.start()
        is_crlf = (line.group(2) or self._line_break) == b"\r\n"
        return end - 1 if is_crlf and self._buffer[end - 1 : end] == b"\r" else end

    def _cut(self) -> int:
        """Return how many bytes of the buffer are not part of a line that is a boundary, or may
        become one with the next chunk."""
        buffer = self._buffer
        size, most = len(buffer), len(self._boundary) + MAX_BLANKS + 3
        cut = buffer.rfind(self._boundary, max(0, size - most))
        if cut < 0 or not self._cut_line.match(buffer, cut):
            cut = buffer.rfind(b"\n", max(0, size - len(self._boundary)))
            if cut < 0 or not self._boundary.startswith(buffer[cut:]):
                cut = size
        return cut - 1 if buffer[cut - 1 : cut] == b"\r" else cut

    def _begin_part(self, line: re.Match) -> None:
        """Go on behind a boundary."""
        if line.group(1):
            self._step = self._epilogue
            return
        self._parts += 1
        if self._parts > self._most_parts:
            raise MalformedForm(f"Invalid multipart form: it has over {self._most_parts} parts")
        self._buffer, self._searched = self._buffer[line.end() :], 0
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
    for line in re.split(r"\r?\n", text) if text else ():
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[!#-'*+.0-9A-Z^-z|~-]+", name.strip()):
            raise MalformedForm(f"Invalid multipart form: {line[:100]!r} is not a header")
        found.setdefault(name.strip().lower(), value.strip())
    if "content-disposition" not in found:
        raise MalformedForm("Invalid multipart form: a part has no Content-Disposition")
    return Part(found)
