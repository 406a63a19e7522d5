"""Text that clients send: its charset, and the JSON in it."""

import re
from collections.abc import Mapping
from encodings.aliases import aliases
from typing import Any

from kinto.core.resource import has_null_character
from kinto.core.utils import json
from pyramid.request import Request

from ..errors import FieldRefused

MAX_DEPTH = 200
"""Levels of nesting in JSON. Kinto's own code is recursive, and fails at a few more."""

CHARSETS = frozenset({"utf_8", "ascii", "latin_1", "utf_16", "utf_16_be", "utf_16_le"})
"""The charsets of text, by the names of Python's codecs. Others may take time that grows faster
than the text, such as ``idna`` and ``punycode``."""

FILENAME_CHARSETS = CHARSETS | {"iso8859_15", "cp1252"}
"""The charsets of ``filename*``."""

ACCEPTED = "UTF-8, US-ASCII, ISO-8859-1 or UTF-16"
"""How a message names :data:`CHARSETS`."""


def _plain(charset: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", charset.lower()).strip("_")


# Python remembers each name that it was ever asked for, so it is asked for none that clients send.
_CODECS = {name: name for name in FILENAME_CHARSETS} | {
    _plain(name): codec for name, codec in aliases.items() if codec in FILENAME_CHARSETS
}


def codec_of(charset: str, known: frozenset[str] = CHARSETS) -> str:
    """Return the codec for a charset.

    :raises LookupError: if it is not a known one.

    >>> codec_of("ISO-8859-1"), codec_of("utf8"), codec_of("windows-1252", FILENAME_CHARSETS)
    ('latin_1', 'utf_8', 'cp1252')
    """
    codec = _CODECS.get(_plain(charset))
    if codec not in known:
        raise LookupError(f"unknown charset: {charset[:100]}")
    return codec


def decode_body(request: Request, content: bytes) -> str:
    """Return the body of a request as text. Its charset is the one in ``Content-Type``, or UTF-8.

    :raises FieldRefused: if this server does not accept the charset, or the body is not in it.
    """
    charset = request.charset
    try:
        return content.decode(codec_of(charset))
    except LookupError as error:
        reason = f"Content-Type has an unknown charset ({charset[:100]}): use {ACCEPTED}"
        raise FieldRefused(reason, "Content-Type", "header") from error
    except UnicodeError as error:
        raise FieldRefused(f"the body is not {charset[:100]} text", "body") from error


def parse_json(text: str, name: str, field: str) -> Any:
    """Return the value of JSON. The parser is the one that Kinto uses for bodies.

    :param name: what to call the text in a message.
    :param field: the field that has it.
    :raises FieldRefused: if the text is not valid JSON, is nested too deeply, or contains a null
        character.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FieldRefused(f"{name} is not valid JSON ({error})", field) from error
    if _is_deeper_than(MAX_DEPTH, value):
        raise FieldRefused(f"{name} is nested too deeply: over {MAX_DEPTH} levels", field)
    if has_null_character(value):  # PostgreSQL cannot store these
        raise FieldRefused(f"{name} contains a null character: remove it", field)
    return value


def read_json_object(fields: Mapping[str, str], name: str) -> dict[str, Any] | None:
    """Return a text field as a JSON object, or None if the client did not send the field.

    :raises FieldRefused: if the field is not a JSON object, is nested too deeply, or contains a
        null character.
    """
    if name not in fields:
        return None
    value = parse_json(fields[name], name, name)
    if not isinstance(value, dict):
        raise FieldRefused(f"{name} is not a JSON object", name)
    return value


def _is_deeper_than(depth: int, value: Any) -> bool:
    """Return whether JSON has more than ``depth`` levels, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
    return bool(level)
