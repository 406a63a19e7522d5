"""Media types: what a file is called, what its bytes look like, and what browsers make of it."""

import re

from xtractmime import RESOURCE_HEADER_BUFFER_LENGTH, extract_mime, is_binary_data
from xtractmime.mimegroups import is_javascript_mime_type, is_json_mime_type, is_xml_mime_type

DEFAULT_MIMETYPE = "application/octet-stream"

SNIFF_BYTES = RESOURCE_HEADER_BUFFER_LENGTH
"""Bytes of the beginning of a file that browsers look at."""

# RFC 6838 names of a media type and its subtype.
_MIMETYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

_RASTER = (
    "image/(apng|avif|bmp|gif|hei[cf]|jpeg|jpg|jxl|pjpeg|png|tiff|vnd.microsoft.icon|webp|x-icon)"
)
_MEDIA = re.compile(rf"(audio|video)/.*|{_RASTER}")

# Other names of what the standard has a signature for.
_ALIASES = {
    "application/gzip": "application/x-gzip",
    "application/x-pdf": "application/pdf",
    "application/x-zip-compressed": "application/zip",
    "image/apng": "image/png",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/vnd.microsoft.icon": "image/x-icon",
    "image/x-ms-bmp": "image/bmp",
    "image/x-png": "image/png",
}
# Their files begin with the signature, or as _begins_otherwise() has it.
_SIGNED = {
    "application/pdf",
    "application/x-gzip",
    "application/zip",
    "image/bmp",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/x-icon",
}
_MARKUP = {"text/html", "text/xml"}
_WHITESPACE = b"\t\n\x0c\r "
_BYTE_ORDER_MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")


def accept_mimetype(mimetype: str | None) -> str | None:
    """A media type in lowercase without parameters, or None when it is not one.

    >>> accept_mimetype("Text/Plain; charset=utf-8"), accept_mimetype("nonsense")
    ('text/plain', None)
    """
    mimetype = (mimetype or "").partition(";")[0].strip().lower()
    return mimetype if _MIMETYPE.fullmatch(mimetype) else None


def sniff(head: bytes) -> str:
    """What a browser takes a file for that comes without a type
    (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type).

    :param head: its first :data:`SNIFF_BYTES` bytes; fewer only if there are no more.

    >>> sniff(b"<script>alert(1)</script>"), sniff(b"GIF89a..."), sniff(b"")
    ('text/html', 'image/gif', 'text/plain')
    """
    head = head[:SNIFF_BYTES]
    text = head.lstrip(_WHITESPACE)
    if text == head:
        return extract_mime(head).decode()
    # Only markup may begin with whitespace; xtractmime 0.2 reads past the end of what it skips it
    # in, so the end is moved.
    found = extract_mime(text + b"." * 32).decode()
    if found in _MARKUP:
        return found
    return DEFAULT_MIMETYPE if is_binary_data(head) else "text/plain"


def contradicts(mimetype: str, head: bytes) -> bool:
    """Whether these are not the first bytes of a file of that type, as far as one can tell.

    >>> contradicts("image/png", b"<html>"), contradicts("font/woff2", b"<html>")
    (True, True)
    >>> contradicts("text/csv", b"a,b"), contradicts("application/x-unheard-of", b"<html>")
    (False, False)
    """
    claimed = _ALIASES.get(mimetype, mimetype)
    if claimed in _SIGNED:
        return sniff(head) != claimed and not _begins_otherwise(claimed, head)
    if claimed == "image/svg+xml" and sniff(head) == "application/x-gzip":
        return False  # .svgz
    if _is_text(claimed):
        return is_binary_data(head) and not head.startswith(_BYTE_ORDER_MARKS)
    kind, _, subtype = claimed.partition("/")
    if kind in ("audio", "font", "image", "video"):
        found = sniff(head)
        # Playlists and old pictures are text, with names of this kind; .ts is TypeScript too.
        if found == "text/plain":
            return not subtype.startswith(("x-", "vnd.")) and subtype not in ("mpegurl", "mp2t")
        if found == "application/x-gzip":
            return False  # .emz, .wmz
        return found in _MARKUP or (found in _SIGNED and kind != found.partition("/")[0])
    return False


def _begins_otherwise(mimetype: str, head: bytes) -> bool:
    """What browsers do not know, and readers of such files do."""
    if mimetype == "application/zip":
        return head.startswith((b"PK\x05\x06", b"PK\x07\x08"))  # empty, or in pieces
    if mimetype == "application/pdf":
        return b"%PDF-" in head[:1024]
    return mimetype == "image/x-icon" and sniff(head).startswith("image/")


def is_disguised(mimetype: str, head: bytes) -> bool:
    """Whether it is markup, which a browser might run, under the name of something harmless.

    >>> is_disguised("image/png", b" <html>"), is_disguised("text/plain", b"<html>")
    (True, False)
    """
    shown = mimetype.startswith(("audio/", "font/", "image/", "video/", "application/pdf"))
    return shown and not is_xml_mime_type(mimetype.encode()) and sniff(head) in _MARKUP


def is_media(mimetype: str) -> bool:
    """Raster images, audio and video: whoever serves them, browsers run nothing of them."""
    return _MEDIA.fullmatch(mimetype) is not None and not is_xml_mime_type(mimetype.encode())


def is_shown(mimetype: str) -> bool:
    """Return whether browsers may show files of this type, given the security headers that
    downloads carry."""
    return is_media(mimetype) or mimetype in ("application/pdf", "text/plain")


def served_type(mimetype: str) -> str:
    """The ``Content-Type`` for bytes of that type from our own origin: scripts are text there, as
    ``nosniff`` keeps a page from running text.

    >>> served_type("text/javascript"), served_type("image/svg+xml")
    ('text/plain', 'image/svg+xml')
    """
    return "text/plain" if is_javascript_mime_type(mimetype.encode()) else mimetype


def _is_text(mimetype: str) -> bool:
    name = mimetype.encode()
    return (
        mimetype.startswith("text/")
        or is_javascript_mime_type(name)
        or is_json_mime_type(name)
        or is_xml_mime_type(name)
    )
