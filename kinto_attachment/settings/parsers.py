"""From the text of an ini file to a value. Every parser raises ``ValueError`` with the reason if
the text is wrong."""

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ..files.mimetype import accept_mimetype
from .extensions import resolve_extensions


def parse_text(value: Any) -> str:
    return str(value).strip()


def parse_flag(value: Any) -> bool:
    text = parse_text(value).lower()
    if text in ("true", "yes", "on", "y", "t", "1"):
        return True
    if text in ("false", "no", "off", "n", "f", "0", "none", ""):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def integer(minimum: int = 0, maximum: float = math.inf, unit: str = "") -> Callable[[Any], int]:
    """Return a parser of whole numbers; an empty text is 0 where that is allowed.

    :param unit: what is counted, in the plural, for the error message.

    >>> integer(1, 64, "processes")("8")
    8
    >>> integer(1, 64, "processes")("99")
    Traceback (most recent call last):
    ...
    ValueError: '99' is not a whole number of processes from 1 to 64
    """
    what = f"a whole number of {unit}" if unit else "a whole number"
    if maximum < math.inf:
        what += f" from {minimum} to {maximum}"
    elif minimum:
        what += f" of at least {minimum}"

    def parse(value: Any) -> int:
        text = parse_text(value) or ("" if minimum else "0")
        if not (text.isascii() and text.isdigit() and minimum <= int(text) <= maximum):
            raise ValueError(f"{text!r} is not {what}")
        return int(text)

    return parse


def parse_sizes(value: Any) -> frozenset[tuple[int, int]]:
    """``320x0 640x0, 100x100``"""
    sizes = re.split(r"[\s,]+", parse_text(value))
    for size in filter(None, sizes):
        if not re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", size):
            raise ValueError(f"{size!r} is not a size of the form 320x0")
    return frozenset(tuple(map(int, size.split("x"))) for size in sizes if size)


def parse_id(value: Any) -> str:
    """The id of a bucket or collection."""
    text = parse_text(value)
    if text == "default" or (text and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]*", text)):
        raise ValueError(f"{text!r} is no id of a bucket or collection")
    return text


def parse_seconds(value: Any) -> float:
    text = parse_text(value)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"{text!r} is not a number of seconds")
    return seconds


def parse_url(value: Any) -> str:
    """A base URL, with its trailing slash."""
    text = parse_text(value)
    if text and re.search(r"\s", text):
        raise ValueError(f"{text!r} is not a URL")
    return text if not text or text.endswith("/") else f"{text}/"


def parse_path(value: Any) -> str:
    """The path of a URL, with a slash at both ends."""
    text = parse_text(value)
    segments = text.removesuffix("/").split("/")[1:]
    plain = all(re.fullmatch(r"[A-Za-z0-9._~-]+", segment) for segment in segments)
    if not text.startswith("/") or not segments or not plain or {".", ".."} & set(segments):
        raise ValueError(f"{text!r} is not an absolute path of a URL, below its root")
    return text if text.endswith("/") else f"{text}/"


def parse_endpoint(value: Any) -> str:
    text = parse_text(value).rstrip("/")
    if text and not re.match(r"https?://[^/\s]+", text):
        raise ValueError(f"{text!r} is not an http:// or https:// URL")
    return text


def parse_port(value: Any) -> str:
    """A TCP port, or nothing."""
    text = parse_text(value)
    return str(integer(1, 65535)(text)) if text else ""


def parse_extensions(value: Any) -> frozenset[str]:
    """Groups and extensions, as pyramid_storage has them: ``default+video``, ``mp4 avi``,
    ``any`` (an empty set: everything)."""
    text = parse_text(value)
    if "any" in text.split("+"):
        return frozenset()
    return resolve_extensions(text)


def parse_mimetypes(value: Any) -> Mapping[str, str]:
    """``.ftl:application/vnd.fluent;.db:application/vnd.sqlite3``"""
    types = {}
    for item in filter(None, (part.strip() for part in re.split(r"[;\n]", parse_text(value)))):
        extension, colon, mimetype = item.partition(":")
        accepted = accept_mimetype(mimetype)
        if not colon or not extension.strip().lstrip(".") or accepted is None:
            raise ValueError(f"{item!r} is not of the form .extension:type/subtype")
        types[extension.strip().lstrip(".").lower()] = accepted
    return MappingProxyType(types)


def one_of(*names: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if parse_text(value) not in names:
            raise ValueError(f"{parse_text(value)!r} is none of {', '.join(names)}")
        return parse_text(value)

    return parse
