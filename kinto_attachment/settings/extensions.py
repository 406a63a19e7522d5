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
"""Extensions by the name of their group. The groups are those of pyramid_storage, because existing
ini files use their names. The group ``any`` is empty, which means that every extension is accepted.
"""
GROUPS["default"] = GROUPS["documents"] | GROUPS["text"] | GROUPS["images"] | GROUPS["data"]


def resolve_extensions(text: str) -> frozenset[str]:
    """Return the extensions that a setting accepts, in lowercase and without their dots.

    :param text: groups and extensions joined by ``+``; spaces may also separate extensions.

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
