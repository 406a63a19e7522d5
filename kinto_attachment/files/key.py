"""Keys: where bytes lie in a storage, and how the settings name them."""

import re
import string
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

from ..errors import KeyRefused, SettingError
from .filename import extension_of, safe_filename
from .ref import Ref

MAX_KEY = 1024
"""Bytes of a key in UTF-8, the limit of S3 and GCS."""

HEARTBEAT = "__heartbeat__"
"""The folder of the objects with which the heartbeat tries a storage."""

MARKER = "__kinto-attachment__/storage.json"
"""The object that says which database a storage belongs to."""

NEW_MARKER = f"{MARKER}.new"
"""The object that is about to replace it."""

RESERVED = frozenset(
    {"private", "_media", "_media-pending", "_variants", HEARTBEAT, MARKER.partition("/")[0]}
)
"""The first segments of keys that this plugin makes for itself. A file of that name, in the place
of the folder, would block the media store, resized images or all uploads."""

# What placeholders can become. The others become anything but a slash.
_VALUES = {
    "uuid": "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "hash": "[0-9a-f]{64}",
    "shard": "[0-9a-f]{2}",
    "datetime": "[0-9]{14}",
    "extension": r"(?:\.[A-Za-z0-9]{1,16})?",
}
# What they can become in the name of a folder. No id and no filename contains a tilde, and no id a
# dot.
_FOLDER_VALUES = {**_VALUES, "filename": "[^/~]+"}
_FOLDER_ID = "[^/~.]+"
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
# What is added to a name that is taken, and to one that may be that of a folder.
_SUFFIX = re.compile(r"-[0-9a-f]{8}(?=(?:\.[^/]*)?$)")
_TILDES = re.compile(r"~+(?=(?:\.[^/]*)?$)")
_NOTHING = re.compile(r"(?!)")


def check_key(key: str) -> str:
    """Return the key unchanged if it names a place below the root of a storage.

    :raises KeyRefused: if it is empty, longer than 1024 bytes or absolute, or has empty, ``.`` or
        ``..`` segments, backslashes or control characters.

    >>> check_key("blog/articles/photo.jpg")
    'blog/articles/photo.jpg'
    """
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise KeyRefused(ascii(key), "not Unicode text") from None
    if not 0 < size <= MAX_KEY:
        raise KeyRefused(key[:80], f"{size} bytes where 1 to {MAX_KEY} are allowed")
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        raise KeyRefused(key, "not a relative path")
    if _UNSAFE.search(key):
        raise KeyRefused(ascii(key), "backslash or control character")
    return key


def is_key(text: Any) -> bool:
    """Return whether that is a key, as :func:`check_key` accepts it.

    >>> is_key("a/b.txt"), is_key("a/../b.txt"), is_key(["a"])
    (True, False, False)
    """
    try:
        return isinstance(text, str) and bool(check_key(text))
    except KeyRefused:
        return False


def is_marker(key: str) -> bool:
    """Return whether the key is that of the marker of its own storage.

    >>> is_marker(MARKER), is_marker(f"staging/{MARKER}")
    (True, False)
    """
    return key in (MARKER, NEW_MARKER)


def marked_folder(key: str) -> str | None:
    """If the key is that of a marker in a folder, return the folder with its slash, because another
    database owns it. Otherwise return None.

    >>> marked_folder("staging/__kinto-attachment__/storage.json"), marked_folder("a.png")
    ('staging/', None)
    """
    for marker in (MARKER, NEW_MARKER):
        if key.endswith(f"/{marker}"):
            return key.removesuffix(marker)
    return None


def quote_key(key: str) -> str:
    """Return the key as the path of a URL, percent-encoded where RFC 3986 requires it.

    >>> quote_key("my files/a+b.png")
    'my%20files/a+b.png'
    """
    return quote(key, safe="/!$&'()*+,;=:@")


def key_suffixes(location: str) -> list[str]:
    """Return every suffix of a location that can be its key, the longest first. The existing plugin
    did not encode locations, so those are tried as they are, too.

    >>> key_suffixes("blog/articles/a.png")
    ['blog/articles/a.png', 'articles/a.png', 'a.png']
    >>> key_suffixes("my%20files/a")
    ['my files/a', 'a', 'my%20files/a']
    """
    texts = dict.fromkeys((unquote(location), location))
    suffixes = (
        text[start:]
        for text in texts
        for start in (0, *(match.end() for match in re.finditer("/", text)))
        if 0 < len(text) - start <= MAX_KEY
    )
    return list(dict.fromkeys(suffixes))


class KeyTemplate:
    """The rule by which the keys of one bucket or collection are made.

    :param folder: a path with ``{bucket_id}`` and ``{collection_id}``.
    :param pattern: the name below it, of ``{uuid}``, ``{hash}``, ``{filename}``,
        ``{extension}`` (with its dot), ``{datetime}`` (of now, in UTC), ``{record_id}`` or
        ``{rid}``, ``{bucket_id}``, ``{collection_id}``, and ``{shard}``, the first two digits of
        the hash: a folder of many files has 256 of its own.
    :param randomize: whether ``{filename}`` is a UUID with the extension of the file, and not the
        name that the client sent.
    :param is_own: whether the plugin makes these keys for itself, so that they may begin with a
        :data:`RESERVED` segment.
    :raises SettingError: if there is another placeholder, or if the path leaves the root.

    >>> from kinto_attachment.files.ref import FieldRef, RecordRef
    >>> template = KeyTemplate("{bucket_id}", "{hash}{extension}")
    >>> next(template.keys(FieldRef(RecordRef("blog", "a", "b")), "x.PNG", "e3b0"))
    'blog/e3b0.png'
    """

    FOLDER = frozenset({"bucket_id", "collection_id"})
    PATTERN = FOLDER | {
        *("record_id", "rid", "uuid", "hash", "shard", "filename", "extension", "datetime")
    }

    def __init__(self, folder: str, pattern: str, *, randomize: bool = False, is_own: bool = False):
        folder = folder.strip("/")
        _check_template("folder", folder, self.FOLDER)
        _check_template("filename_pattern", pattern, self.PATTERN)
        if not pattern:
            raise SettingError("filename_pattern", "cannot be empty")
        if randomize:
            pattern = "".join(
                literal.replace("{", "{{").replace("}", "}}") + _randomized(name)
                for literal, name, _, _ in string.Formatter().parse(pattern)
            )
        if folder:
            pattern = f"{folder}/{pattern}"
        self.text = pattern
        self._is_own = is_own
        fields = set(_placeholders(pattern))
        self.unique = "uuid" in fields
        """Whether every key is used once only."""
        self.shared = "hash" in fields and not self.unique
        """Whether files with the same bytes share one key."""
        self.needs_digest = bool(fields & {"hash", "shard"})
        """Whether a key can be made only once all bytes are there."""
        self._made = re.compile(_expression(pattern, _VALUES, "[^/]+"))
        self._folders = _NOTHING

    def makes(self, key: str) -> bool:
        """Return whether the key matches this template, which tells our objects from those of other
        applications in the bucket.

        >>> template = KeyTemplate("{bucket_id}", "{uuid}{extension}")
        >>> template.makes("blog/38e4e0f8-1419-4a38-a3f3-a30f62ecc133.jpg")
        True
        >>> template.makes("backups/monday.tar")
        False
        """
        plain = _TILDES.sub("", key, count=1)
        candidates = (key, plain, _SUFFIX.sub("", key, count=1), _SUFFIX.sub("", plain, count=1))
        return any(self._made.fullmatch(candidate) for candidate in candidates)

    def keep_clear_of(self, folders: re.Pattern) -> None:
        """Make no key from now on that may be one of these folders, as :func:`folders_of` returns
        them. In a local storage, such a file would block the folder for good."""
        self._folders = folders

    def folder_expressions(self) -> Iterator[str]:
        """Yield a regular expression for each folder in the keys of this template, except for the
        reserved ones."""
        segments = self.text.split("/")
        for depth in range(2 if self._is_own else 1, len(segments)):
            yield _expression("/".join(segments[:depth]), _FOLDER_VALUES, _FOLDER_ID)

    def keys(self, ref: Ref, filename: str, digest: str) -> Iterator[str]:
        """Yield the wanted key, then endless alternatives for when it is taken: ``a.jpg``,
        ``a-1f0c33d2.jpg``...

        If a key would begin with a reserved segment, that gets a ``~``: ``private`` becomes
        ``private~``. A name that may be that of a folder (see :meth:`keep_clear_of`) gets one, too.
        """
        extension = extension_of(filename)
        values = {
            **dict(zip(("bucket_id", "collection_id", "record_id"), ref.path[:3], strict=True)),
            "hash": digest,
            "shard": digest[:2],
            "extension": f".{extension}" if extension else "",
            "rid": ref.path[2],
            "datetime": datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S"),
            "filename": safe_filename(filename),
        }
        yield check_key(self._off_folders(self._fill(values)))
        while True:
            key = _add_to_name(self._fill(values), f"-{uuid4().hex[:8]}")
            yield check_key(self._off_folders(key))

    def _fill(self, values: dict[str, str]) -> str:
        key = self.text.format_map({**values, "uuid": str(uuid4())})
        first, slash, rest = key.partition("/")
        return f"{first}~{slash}{rest}" if is_reserved(first) and not self._is_own else key

    def _off_folders(self, key: str) -> str:
        # A UUID cannot be known before, so no such key is in the way of a folder.
        while not self.unique and self._may_be_folder(key):
            key = _add_to_name(key, "~")
        return key

    def _may_be_folder(self, key: str) -> bool:
        first, slash, rest = key.partition("/")
        # The folder of a bucket called private is private~.
        asked = first[:-1] if is_reserved(first[:-1]) and first.endswith("~") else first
        return any(self._folders.fullmatch(name + slash + rest) for name in {first, asked})


def is_reserved(segment: str) -> bool:
    """Return whether this plugin uses the first segment of a key for itself. Upper and lower case
    are one to some file systems.

    >>> is_reserved("Private"), is_reserved("private.txt")
    (True, False)
    """
    return segment.lower() in RESERVED


def folders_of(templates: Iterable[KeyTemplate]) -> re.Pattern:
    """Return a pattern that matches the folders in all keys that these templates can make. Upper
    and lower case are one to some file systems.

    >>> folders = folders_of([KeyTemplate("blog/{bucket_id}", "{hash}")])
    >>> [key for key in ("Blog", "blog/a", "blog/a.txt", "a") if folders.fullmatch(key)]
    ['Blog', 'blog/a']
    """
    found = {expression for each in templates for expression in each.folder_expressions()}
    return re.compile("|".join(sorted(found)), re.IGNORECASE) if found else _NOTHING


def _add_to_name(key: str, suffix: str) -> str:
    """Return the key with a suffix before the extensions of its name.

    >>> _add_to_name("a/b.tar.gz", "~")
    'a/b~.tar.gz'
    """
    folder, slash, name = key.rpartition("/")
    stem, dot, extensions = name.partition(".")
    return f"{folder}{slash}{stem}{suffix}{dot}{extensions}"


def _expression(template: str, values: dict[str, str], other: str) -> str:
    """Return a regular expression for what the template can become.

    :param values: expressions for placeholders.
    :param other: the expression for those that are not among them.
    """
    return "".join(
        re.escape(literal) + (values.get(name, other) if name else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def _randomized(name: str | None) -> str:
    if name == "filename":
        return "{uuid}{extension}"
    return "" if name is None else f"{{{name}}}"


def _placeholders(template: str) -> Iterator[str]:
    return (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def _check_template(setting: str, template: str, known: frozenset[str]) -> None:
    try:
        unknown = sorted(set(_placeholders(template)) - known)
    except ValueError as error:
        raise SettingError(setting, f"{template!r}: {error}") from error
    if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(template)):
        # {hash:.8} would give many files one name.
        raise SettingError(setting, f"{template!r}: placeholders take no format")
    if unknown:
        allowed = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise SettingError(setting, f"unknown placeholder {{{unknown[0]}}}, use {allowed}")
    if template:
        try:
            check_key(template.format_map(dict.fromkeys(known, "x")))
        except (KeyRefused, ValueError, IndexError, AttributeError) as error:
            raise SettingError(setting, f"{template!r} is not a relative path: {error}") from error
