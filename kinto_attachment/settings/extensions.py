"""Groups of filename extensions, for the setting ``extensions``."""

GROUPS: dict[str, frozenset[str]] = {
    name: frozenset(extensions.split())
    for name, extensions in {
        "text": "txt",
        "documents": "abw doc docx gnumeric ods odf pdf rtf xls xlsx",
        "images": "bmp gif jpe jpeg jpg png svg tiff",
        "audio": "aac flac mp3 oga ogg wav",
        "video": "3gp avi divx dvr flv mp4 mpeg wmv",
        "data": "csv ini json plist xml yaml yml",
        "scripts": "js php pl py rb sh",
        "archives": "7z bz2 gz tar tgz txz zip",
        "executables": "dll exe so",
        "any": "",
    }.items()
}
"""The groups of pyramid_storage, by whose names existing ini files choose them. ``any`` is empty,
which accepts everything."""
GROUPS["default"] = GROUPS["documents"] | GROUPS["text"] | GROUPS["images"] | GROUPS["data"]


def resolve_extensions(text: str) -> frozenset[str]:
    """Return the extensions that groups and single names stand for, in lowercase without a dot.

    :param text: groups joined by ``+``; single extensions may also be separated by spaces.

    >>> sorted(resolve_extensions("text+mp4 .AVI"))
    ['avi', 'mp4', 'txt']
    """
    extensions: set[str] = set()
    for name in text.split("+"):
        if name in GROUPS:
            extensions |= GROUPS[name]
        else:
            extensions |= {each.lower().lstrip(".") for each in name.split()}
    return frozenset(extensions)
