"""Names of files: which are accepted, and how they are told to clients and storages."""

import re
import unicodedata
from urllib.parse import quote

from ..errors import FilenameRefused

MAX_FILENAME = 255
"""Characters of a filename: as many as the file systems allow on which it will be saved."""


# The characters with the Unicode property Bidi_Control. They change the order in which others are
# shown, so that the name of a program may look like that of an image.
_BIDI_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_NO_NAMES = ("", ".", "..")
"""What no file is called: nothing, its folder, and the folder above that."""


def accept_filename(filename: str | None) -> str:
    """Return the filename of a form part in its normal form.

    Any script is welcome. A name that could be taken for more than the name of one file is
    refused: RFC 7578, section 4.2.

    :raises FilenameRefused: if it is empty, too long, a path, or has control characters.

    >>> accept_filename("façade 写真.jpg")
    'façade 写真.jpg'
    """
    filename = unicodedata.normalize("NFC", (filename or "").strip())
    visible = _without_controls(filename)
    if not visible:
        raise FilenameRefused("Filename is required.")
    if len(filename) > MAX_FILENAME:
        raise FilenameRefused(
            f"Filename is too long ({len(filename)} characters, {MAX_FILENAME} are allowed)."
        )
    if "/" in filename or "\\" in filename or visible in _NO_NAMES:
        raise FilenameRefused("Filename cannot be a path.")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in filename):
        raise FilenameRefused("Filename cannot contain control characters.")
    return filename


def _without_controls(filename: str) -> str:
    """Return the filename as it is told to clients."""
    return _BIDI_CONTROLS.sub("", filename).strip()


def extension_of(filename: str) -> str:
    """Return the last extension in lowercase, without its dot: ASCII letters and digits only.

    >>> extension_of("photo.JPG"), extension_of("README"), extension_of(".profile")
    ('jpg', '', '')
    """
    stem, dot, extension = filename.rpartition(".")
    if not stem.strip(".") or not re.fullmatch(r"[A-Za-z0-9]{1,16}", extension):
        return ""
    return extension.lower()


def checked_extension(filename: str) -> str:
    """Return what the setting ``extensions`` is compared with: all after the last dot, in
    lowercase.

    >>> checked_extension("photo.JPG"), checked_extension("README"), checked_extension(".profile")
    ('jpg', '', 'profile')
    """
    return filename.rpartition(".")[2].lower() if "." in filename else ""


def safe_filename(filename: str) -> str:
    """Return a name of ASCII letters, digits, ``_``, ``-`` and ``.``, at most 100 characters.

    >>> safe_filename("mon été.PNG"), safe_filename("写真.png")
    ('mon_ete.PNG', 'file.png')
    """
    ascii_name = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    stem, dot, extension = ascii_name.rpartition(".")
    if not dot:
        stem, extension = ascii_name, ""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(stem.split())).strip("._")[:80]
    extension = re.sub(r"[^A-Za-z0-9]", "", extension)[:16]
    return f"{stem or 'file'}.{extension}" if extension else stem or "file"


def cut_filename(filename: str, size: int) -> str:
    """Return a name of at most ``size`` bytes in UTF-8, with its extension.

    >>> cut_filename("写真写真.png", 10), cut_filename("photo.png", 10)
    ('写真.png', 'photo.png')
    """
    encoded = filename.encode("utf-8", "replace")
    if len(encoded) <= size:
        return filename
    end = _ending(filename)
    return encoded[: size - len(end)].decode("utf-8", "ignore").rstrip() + end


def _ending(filename: str) -> str:
    """Return the extension with its dot; empty if there is none."""
    extension = extension_of(filename)
    return f".{extension}" if extension else ""


def content_disposition(filename: str, inline: bool) -> str:
    """Return the value of ``Content-Disposition`` (RFC 6266), without bidirectional controls.

    :param inline: whether browsers may show the file instead of saving it.

    >>> content_disposition("写真.png", inline=True)
    'inline; filename="file.png"; filename*=UTF-8\\'\\'%E5%86%99%E7%9C%9F.png'
    """
    filename = _without_controls(filename)
    if len(filename) > MAX_FILENAME:
        end = _ending(filename)
        filename = filename[: MAX_FILENAME - len(end)].strip() + end
    if filename in _NO_NAMES:
        filename = "file"
    value = f'{"inline" if inline else "attachment"}; filename="{safe_filename(filename)}"'
    if safe_filename(filename) != filename:
        value += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return value
