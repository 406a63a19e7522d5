"""What a setting is."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

INI_PREFIX = "kinto.attachment."
"""The beginning of the name of every setting in an ini file."""


class Parser(Protocol):
    """Returns the value of a text, or raises ``ValueError`` if the text is wrong. The message says
    what is wrong and what is accepted; the caller puts the name of the setting before it.

    :ivar type: what it accepts, in the words of the documentation, such as ``whole number``.
    :ivar unit: what a number counts, in the plural; empty if it is no number.
    """

    type: str
    unit: str

    def __call__(self, value: Any, /) -> Any: ...


def parses(type: str, unit: str = "") -> Callable[[Callable[[Any], Any]], Parser]:
    """Return a decorator that makes a function a :class:`Parser`.

    >>> @parses("text")
    ... def parse_name(value): return str(value)
    >>> parse_name.type, parse_name("a")
    ('text', 'a')
    """

    def decorate(function: Any) -> Parser:
        function.type, function.unit = type, unit
        return function

    return decorate


class Setting(NamedTuple):
    """One setting.

    :param name: its name, without the prefix.
    :param parse: returns the value of its text, or raises ``ValueError``.
    :param default: its text in an ini file that does not set it.
    :param help: its description in the documentation.
    :param per_resource: whether a bucket or collection may have its own value.
    :param alias: another name that is accepted, from an older version; empty if there is none.
    """

    name: str
    parse: Parser
    default: str
    help: str
    per_resource: bool = False
    alias: str = ""
