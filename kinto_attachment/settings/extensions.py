"""Groups of filename extensions, for the setting ``extensions``."""

import re
from difflib import get_close_matches

GROUPS: dict[str, frozenset[str]] = {
    name: frozenset(extensions.split())
    for name, extensions in {
        "text": "log markdown md srt txt vtt",
        "documents": "abw doc docx epub gnumeric odf odp ods odt pdf ppt pptx rtf xls xlsx",
        "images": "avif bmp gif heic heif ico jfif jpe jpeg jpg png svg tif tiff webp",
        "audio": "aac aif aiff amr flac m4a mid midi mp3 oga ogg opus wav weba",
        "video": "3gp avi divx dvr flv m4v mkv mov mp4 mpeg mpg ogv webm wmv",
        "data": "csv geojson gpx ics ini json kml ndjson plist toml tsv vcf xml yaml yml",
        "fonts": "eot otf ttf woff woff2",
        "archives": "7z bz2 gz rar tar tgz txz xz zip zst",
        "scripts": "js mjs php pl py rb sh",
        "executables": "dll exe so wasm",
        "any": "",
    }.items()
}
"""Extensions by the name of their group. The groups are those of pyramid_storage, because existing
ini files use their names, and ``fonts``. The group ``any`` is empty, which means that every
extension is accepted.
"""
GROUPS["default"] = frozenset().union(
    *(GROUPS[name] for name in GROUPS if name not in ("scripts", "executables"))
)


_NO_EXTENSIONS = (
    *("picture", "photo", "media", "movie", "film", "music", "sound", "office", "archive"),
    *("compressed", "code", "program", "binary", "all", "everything", "none"),
)
"""What groups might be called, and are not."""


def resolve_extensions(text: str) -> frozenset[str]:
    """Return the extensions that a setting accepts, in lowercase and without their dots.

    :param text: groups and extensions joined by ``+``; spaces may also separate extensions.
    :raises ValueError: if a name is neither a group nor an extension.

    >>> sorted(resolve_extensions("text+mp4 .ftl"))
    ['ftl', 'log', 'markdown', 'md', 'mp4', 'srt', 'txt', 'vtt']
    """
    extensions: set[str] = set()
    for name in text.replace("+", " ").split():
        if name in GROUPS:
            extensions |= GROUPS[name]
        elif is_extension(name):
            extensions.add(name.lower().lstrip("."))
        else:
            raise ValueError(
                f"{name!r} is neither a group ({', '.join(GROUPS)}) nor a known extension: write"
                f" {f'.{name}'!r} if it is one"
            )
    return frozenset(extensions)


def is_extension(name: str) -> bool:
    """Return whether the name may be that of an extension. One that looks like the name of a group
    is a mistake, unless it begins with a dot or is in a group.

    >>> is_extension("mp4"), is_extension("dafsa"), is_extension(".image"), is_extension("image")
    (True, True, True, False)
    """
    if not re.fullmatch(r"\.?[A-Za-z0-9_-]{1,32}", name):
        return False
    extension = name.lower()
    if extension.startswith(".") or any(extension in group for group in GROUPS.values()):
        return True
    looks_like_group = get_close_matches(extension, [*GROUPS, *_NO_EXTENSIONS], n=1, cutoff=0.75)
    return len(extension) <= 10 and not looks_like_group
