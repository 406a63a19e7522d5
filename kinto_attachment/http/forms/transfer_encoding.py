"""Parts of a form whose bytes are sent as text: RFC 2045, section 6.

RFC 7578, section 4.7, deprecates ``Content-Transfer-Encoding`` in forms, but Python's email package
writes it.
"""

import re
from binascii import a2b_base64, a2b_qp
from typing import Protocol

from ...errors import FieldRefused

MAX_LINE = 64 * 1024
"""Bytes of one line in quoted-printable. RFC 2045 allows 76."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BAD_QUOTE = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r?\n|\Z)")
# RFC 2045, section 6.7 (3). Each run of blanks is looked at once.
_BLANKS_AT_END = re.compile(rb"(?<![ \t])[ \t]+(\r?\n|\Z)")


class Decoder(Protocol):
    """What turns the text of a part into its bytes."""

    def decode(self, chunk: bytes, is_last: bool = False) -> bytes:
        """Return the bytes that are complete.

        :param is_last: whether the part ends here; the chunk may then be empty.
        :raises FieldRefused: if the text is not in this encoding.
        """


class Base64:
    """A decoder of base64, whose lines may have any length.

    :param field: the name of the field.

    >>> decoder = Base64("data")
    >>> decoder.decode(b"Y2F0 Y2"), decoder.decode(b"F0", is_last=True)
    (b'cat', b'cat')
    """

    def __init__(self, field: str):
        self._field, self._left, self._ended = field, b"", False

    def decode(self, chunk: bytes, is_last: bool = False) -> bytes:
        """See :class:`Decoder`."""
        text = self._left + chunk.translate(None, b" \t\r\n")
        complete = len(text) // 4 * 4
        block, self._left = text[:complete], text[complete:]
        if (self._ended and text) or (is_last and self._left) or not _BASE64.fullmatch(block):
            raise _refused(self._field, "base64")
        self._ended = self._ended or block.endswith(b"=")
        return a2b_base64(block)


class QuotedPrintable:
    """A decoder of quoted-printable. Blanks at the end of a line are not part of the text.

    :param field: the name of the field.
    :param strict: whether to refuse an equals sign that quotes nothing, instead of keeping it.

    >>> decoder = QuotedPrintable("data")
    >>> decoder.decode(b"a=3Db=\\n"), decoder.decode(b"c", is_last=True)
    (b'a=b', b'c')
    """

    def __init__(self, field: str, strict: bool = True):
        self._field, self._strict, self._left = field, strict, b""

    def decode(self, chunk: bytes, is_last: bool = False) -> bytes:
        """See :class:`Decoder`."""
        text = self._left + chunk
        complete = len(text) if is_last else text.rfind(b"\n") + 1
        lines, self._left = text[:complete], text[complete:]
        lines = _BLANKS_AT_END.sub(rb"\1", lines)
        if len(self._left) > MAX_LINE or (self._strict and _BAD_QUOTE.search(lines)):
            raise _refused(self._field, "quoted-printable")
        return a2b_qp(lines)


def decoder_of(encoding: str, field: str, strict: bool) -> Decoder | None:
    """Return the decoder of a part, or None if its bytes are sent as they are.

    :param encoding: the value of its ``Content-Transfer-Encoding``, in lowercase.
    :param field: the name of its field.
    :param strict: whether every byte counts, as in a file. WebOb reads text as it is if the
        encoding is unknown.
    :raises FieldRefused: if the encoding is unknown.
    """
    match encoding:
        case "" | "7bit" | "8bit" | "binary":
            return None
        case "base64":
            return Base64(field)
        case "quoted-printable":
            return QuotedPrintable(field, strict)
    if not strict:
        return None
    reason = (
        f"{field!r} has an unknown Content-Transfer-Encoding ({encoding[:100]}): use base64,"
        " quoted-printable or, best, none"
    )
    raise FieldRefused(reason, field)


def _refused(field: str, encoding: str) -> FieldRefused:
    return FieldRefused(f"{field!r} is not {encoding}, although its headers say so", field)
