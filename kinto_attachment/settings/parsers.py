"""Parsers of settings: from the text in an ini file to a value."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from ..files.field import Field, Fields
from ..files.mimetype import accept_mimetype
from .extensions import resolve_extensions
from .setting import Parser, parses

_UNITS = {
    f"{letter}{infix}b": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, letter in enumerate("kmgt", 1)
} | {"": 1, "b": 1, "byte": 1, "bytes": 1}
"""Bytes in a unit of size, in lowercase."""


@parses("text")
def parse_text(value: Any) -> str:
    """Return the text without white space at its ends."""
    return str(value).strip()


@parses("true or false")
def parse_flag(value: Any) -> bool:
    """Return whether the text means true, such as ``yes`` or ``on``. An empty text means false."""
    text = parse_text(value).lower()
    if text in ("true", "yes", "on", "y", "t", "1"):
        return True
    if text in ("false", "no", "off", "n", "f", "0", "none", ""):
        return False
    raise ValueError(f"{text!r} is neither true nor false (yes, no, on, off, 1 and 0 are, too)")


def integer(minimum: int = 0, maximum: float = math.inf, unit: str = "") -> Parser:
    """Return a parser of whole numbers. If ``minimum`` is 0, an empty text means 0.

    :param minimum: the smallest accepted number.
    :param maximum: the largest accepted number.
    :param unit: what the number counts, in the plural, for the error message.

    >>> integer(1, 64, "processes")("8")
    8
    >>> integer(1, 64, "processes")("99")
    Traceback (most recent call last):
    ...
    ValueError: '99' is not a whole number of processes from 1 to 64
    """
    limits = ""
    if maximum < math.inf:
        limits = f" from {minimum} to {maximum}"
    elif minimum:
        limits = f" of at least {minimum}"
    what = f"a whole number of {unit}" if unit else "a whole number"

    @parses(f"whole number{limits}", unit)
    def parse(value: Any) -> int:
        text = parse_text(value) or ("" if minimum else "0")
        if not (text.isascii() and text.isdigit() and minimum <= int(text) <= maximum):
            raise ValueError(f"{text!r} is not {what}{limits}")
        return int(text)

    return parse


def byte_size(minimum: str = "", unit: str = "bytes", maximum: str = "") -> Parser:
    """Return a parser of numbers of bytes, with or without a unit such as ``MB`` (a million) or
    ``MiB`` (1024 times 1024). An empty text means 0, if that is accepted.

    :param minimum: the smallest accepted size; empty for 0.
    :param unit: ``bytes``, or ``bytes per second``.
    :param maximum: the largest accepted size; empty for any.

    >>> [byte_size()(text) for text in ("2000", "10MB", "1 GiB", "1.5kb")]
    [2000, 10000000, 1073741824, 1500]
    >>> byte_size("1 byte")("none")
    Traceback (most recent call last):
    ...
    ValueError: 'none' is not a size of at least 1 byte, such as 500000, 512KiB, 10MB or 1.5GiB
    """
    smallest, limit = _bytes(minimum or "0"), f" of at least {minimum}" if minimum else ""
    largest = _bytes(maximum) if maximum else math.inf
    limit += f" and at most {maximum}" if maximum else ""

    @parses(f"size{limit}", unit)
    def parse(value: Any) -> int:
        text = parse_text(value) or ("" if minimum else "0")
        size = _bytes(text)
        if size is None or not smallest <= size <= largest:
            example = "500000, 512KiB, 10MB or 1.5GiB"
            raise ValueError(f"{text!r} is not a size{limit}, such as {example}")
        return size

    return parse


def _bytes(text: str) -> int | None:
    """Return the number of bytes that a text means, or None if it means no whole number of them."""
    found = re.fullmatch(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([a-z]*)", text.lower())
    if not found or found[2] not in _UNITS:
        return None
    size = Decimal(found[1]) * _UNITS[found[2]]
    return int(size) if size == int(size) else None


@parses("list of sizes, such as ``320x0``", "pixels")
def parse_sizes(value: Any) -> frozenset[tuple[int, int]]:
    """Return pairs of width and height, in pixels.

    >>> sorted(parse_sizes("640x0 320x0, 100x100"))
    [(100, 100), (320, 0), (640, 0)]
    """
    sizes = re.split(r"[\s,]+", parse_text(value))
    for size in filter(None, sizes):
        if not re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", size):
            raise ValueError(f"{size!r} is not a size of the form 320x0")
    return frozenset(tuple(map(int, size.split("x"))) for size in sizes if size)


@parses("id")
def parse_id(value: Any) -> str:
    """Return the id of a bucket or collection, or an empty text. ``default`` is not an id, but an
    alias."""
    text = parse_text(value)
    if text == "default" or (text and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]*", text)):
        raise ValueError(
            f"{text!r} is not the id of a bucket or collection: use letters, digits, '-' and '_', "
            "begin with a letter or a digit, and do not use 'default'"
        )
    return text


@parses("number above 0, up to 3600", "seconds")
def parse_seconds(value: Any) -> float:
    """Return a duration in seconds, above 0 and up to one hour."""
    text = parse_text(value)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"{text!r} is not a number of seconds above 0 and up to 3600")
    return seconds


@parses("URL")
def parse_url(value: Any) -> str:
    """Return a base URL, with a slash at its end, or an empty text."""
    text = parse_text(value)
    if text and re.search(r"\s", text):
        raise ValueError(
            f"{text!r} is not a URL such as https://files.example.com/: it contains white space"
        )
    return text if not text or text.endswith("/") else f"{text}/"


@parses("path of a URL")
def parse_path(value: Any) -> str:
    """Return the path of a URL, with a slash at both ends."""
    text = parse_text(value)
    segments = text.removesuffix("/").split("/")[1:]
    plain = all(re.fullmatch(r"[A-Za-z0-9._~-]+", segment) for segment in segments)
    if not text.startswith("/") or not segments or not plain or {".", ".."} & set(segments):
        raise ValueError(f"{text!r} is not the path of a URL below its root, such as /files/")
    return text if text.endswith("/") else f"{text}/"


@parses("path")
def parse_prefix(value: Any) -> str:
    """Return the beginning of keys: folders, with a slash at the end of each, or an empty text.

    >>> parse_prefix("/kinto/staging")
    'kinto/staging/'
    """
    text = parse_text(value).strip("/")
    if text and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", text):
        raise ValueError(
            f"{text!r} is not a path such as staging/: use letters, digits, '.', '_' and '-', and "
            "begin each folder with a letter or a digit"
        )
    return f"{text}/" if text else ""


def _mode(needed: int, allowed: int, example: str) -> Parser:
    """Return a parser of file modes in octal, of which an empty text is None.

    :param needed: the bits without which the server cannot use what it creates.
    :param allowed: the bits that make sense.
    """

    @parses(f"octal mode of at least ``{needed:04o}``")
    def parse(value: Any) -> int | None:
        text = parse_text(value)
        if not text:
            return None
        mode = int(text, 8) if re.fullmatch(r"(0o)?[0-7]{3,4}", text) else 0
        if mode & needed != needed or mode & ~allowed:
            raise ValueError(
                f"{text!r} is not a mode such as {example}, in octal and at least {needed:04o}"
            )
        return mode

    return parse


parse_file_mode = _mode(0o600, 0o777, "0640")
parse_dir_mode = _mode(0o700, 0o2777, "0750")  # with setgid, new files get the folder's group


@parses("URL")
def parse_endpoint(value: Any) -> str:
    """Return the URL of a server, without a slash at its end, or an empty text."""
    text = parse_text(value).rstrip("/")
    if text and not re.match(r"https?://[^/\s]+", text):
        raise ValueError(
            f"{text!r} is not an http:// or https:// URL such as http://s3.internal:8333"
        )
    return text


@parses("whole number from 1 to 65535")
def parse_port(value: Any) -> str:
    """Return a TCP port as text, or an empty text."""
    text = parse_text(value)
    return str(integer(1, 65535)(text)) if text else ""


@parses("list of groups and extensions")
def parse_extensions(value: Any) -> frozenset[str]:
    """Return the accepted extensions; an empty set accepts every extension. As in pyramid_storage,
    the text may be ``default+video``, ``mp4 avi`` or ``any``."""
    text = parse_text(value)
    if "any" in text.split("+"):
        return frozenset()
    return resolve_extensions(text)


@parses("list of media types by extension")
def parse_mimetypes(value: Any) -> Mapping[str, str]:
    """Return media types by extension, in lowercase and without its dot.

    >>> dict(parse_mimetypes(".ftl:application/vnd.fluent;.db:application/vnd.sqlite3"))
    {'ftl': 'application/vnd.fluent', 'db': 'application/vnd.sqlite3'}
    """
    types = {}
    for item in filter(None, (part.strip() for part in re.split(r"[;\n]", parse_text(value)))):
        extension, colon, mimetype = item.partition(":")
        accepted = accept_mimetype(mimetype)
        if not colon or not extension.strip().lstrip(".") or accepted is None:
            raise ValueError(f"{item!r} is not of the form .extension:type/subtype")
        types[extension.strip().lstrip(".").lower()] = accepted
    return MappingProxyType(types)


def one_of(*names: str) -> Parser:
    """Return a parser that accepts only these names."""

    @parses(" or ".join(f"``{name}``" for name in names))
    def parse(value: Any) -> str:
        if parse_text(value) not in names:
            raise ValueError(f"{parse_text(value)!r} is not one of {', '.join(names)}")
        return parse_text(value)

    return parse


@parses("names of fields")
def parse_fields(value: Any) -> Fields:
    """Return the fields whose names the text contains, separated by spaces.

    >>> list(parse_fields("cover pictures[]").values())
    [Field(name='cover', is_list=False), Field(name='pictures', is_list=True)]
    """
    fields: dict[str, Field] = {}
    for text in parse_text(value).replace(",", " ").split():
        field = Field.parse(text)
        if field.name in fields:
            raise ValueError(f"the field {field.name!r} is named twice: name it once")
        fields[field.name] = field
    if not fields:
        raise ValueError("is empty: name at least one field, such as attachment")
    return MappingProxyType(fields)
