"""What a setting is."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One setting.

    :param name: its name, without the prefix.
    :param parse: returns the value of its text, or raises ``ValueError``.
    :param default: its text in an ini file that does not set it.
    :param help: its description in the README.
    :param per_resource: whether a bucket or collection may have its own value.
    :param alias: another name that is accepted, from an older version; empty if there is none.
    """

    name: str
    parse: Callable[[Any], Any]
    default: str
    help: str
    per_resource: bool = False
    alias: str = ""
