"""What went wrong, in one sentence for people: no names of classes, no tracebacks."""

import argparse
import os
import re
import sqlite3
import tempfile

from ..errors import AttachmentError, StorageUnavailable

_CLASS_BEFORE_MESSAGE = re.compile(r"\(?\b[\w.]*(?:Error|Exception|Refused|Timeout)\)?: ?")

NO_TABLE = "42P01"
"""PostgreSQL's code for a table that does not exist."""


def explain(error: Exception, options: argparse.Namespace) -> str:
    """Return why a command failed; empty if that is a fault of this program."""
    if isinstance(error, StorageUnavailable):
        why = clean(error.__cause__ or error)
        return f"The storage failed while the command was running: {why}"
    if isinstance(error, AttachmentError | OSError | ValueError):
        return clean(error)
    if isinstance(error, sqlite3.OperationalError):
        return f"Cannot write to {tempfile.gettempdir()}, where this command keeps lists: {error}"
    if _is_of(error, "kinto.core.storage.exceptions", "sqlalchemy", "psycopg2"):
        return _of_database(error, options.ini)
    if _is_of(error, "pyramid.exceptions"):
        return f"{options.ini}: {clean(error)}"
    return ""


def clean(error: BaseException) -> str:
    """Return the message of an error in one line, without the names of Python's classes.

    >>> clean(FileNotFoundError(2, "No such file or directory", "a.txt"))
    'a.txt: No such file or directory'
    """
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if error.filename else ""
        return f"{name}: {error.strerror}" if name else error.strerror
    return " ".join(_CLASS_BEFORE_MESSAGE.sub("", str(error)).split())


def _of_database(error: BaseException, ini: str) -> str:
    while inner := getattr(error, "original", None) or getattr(error, "orig", None):
        error = inner
    if getattr(error, "pgcode", None) == NO_TABLE:
        return f"The database of {ini} has no tables yet: run kinto migrate --ini {ini}"
    # The first line says why, the others show the statement.
    return f"The database of {ini} does not work: {str(error).strip().splitlines()[0]}"


def _is_of(error: BaseException, *modules: str) -> bool:
    """Return whether the class of an error, or one that it derives from, is defined in one of these
    modules, which may not be installed."""
    return any(kind.__module__.startswith(modules) for kind in type(error).__mro__)
