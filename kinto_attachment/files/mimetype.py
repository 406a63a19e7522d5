"""Media types: as clients declare them, as the bytes suggest them, and as the server sends them."""

import re

from xtractmime import RESOURCE_HEADER_BUFFER_LENGTH, extract_mime, is_binary_data
from xtractmime.mimegroups import is_javascript_mime_type, is_json_mime_type, is_xml_mime_type

DEFAULT_MIMETYPE = "application/octet-stream"
"""The media type of a file of which nothing else is known."""

SNIFF_BYTES = RESOURCE_HEADER_BUFFER_LENGTH
"""The number of bytes at the beginning of a file that browsers look at."""

# A type and a subtype, as RFC 6838 allows them.
_MIMETYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

_RASTER = (
    "image/(apng|avif|bmp|gif|hei[cf]|jpeg|jpg|jxl|pjpeg|png|tiff|vnd.microsoft.icon|webp|x-icon)"
)
_MEDIA = re.compile(rf"(audio|video)/.*|{_RASTER}")

# Other names of media types for which the standard (see sniff()) has a signature.
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
# Media types whose files begin with the signature of the standard, or with another one that
# _has_other_signature() knows.
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
    """Return a media type in lowercase and without its parameters, or None if it is malformed.

    :param mimetype: the type that a client declares, such as the value of ``Content-Type``.

    >>> accept_mimetype("Text/Plain; charset=utf-8"), accept_mimetype("nonsense")
    ('text/plain', None)
    """
    mimetype = (mimetype or "").partition(";")[0].strip().lower()
    return mimetype if _MIMETYPE.fullmatch(mimetype) else None


def sniff(head: bytes) -> str:
    """Return the media type that a browser assumes for a file that comes without a type
    (https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type).

    :param head: the first :data:`SNIFF_BYTES` bytes of the file, or all bytes if it is shorter.

    >>> sniff(b"<script>alert(1)</script>"), sniff(b"GIF89a..."), sniff(b"")
    ('text/html', 'image/gif', 'text/plain')
    """
    head = head[:SNIFF_BYTES]
    text = head.lstrip(_WHITESPACE)
    if text == head:
        return extract_mime(head).decode()
    # Only markup may begin with whitespace. While it skips whitespace, xtractmime 0.2 reads beyond
    # the end of the bytes, so they are padded.
    found = extract_mime(text + b"." * 32).decode()
    if found in _MARKUP:
        return found
    return DEFAULT_MIMETYPE if is_binary_data(head) else "text/plain"


def contradicts(mimetype: str, head: bytes) -> bool:
    """Return whether the first bytes of a file show that it does not have the given media type.
    Return False if they prove nothing, as for types that have no known signature.

    :param mimetype: a media type as :func:`accept_mimetype` returns it.
    :param head: the first :data:`SNIFF_BYTES` bytes of the file, or all bytes if it is shorter.

    >>> contradicts("image/png", b"<html>"), contradicts("font/woff2", b"<html>")
    (True, True)
    >>> contradicts("text/csv", b"a,b"), contradicts("application/x-unheard-of", b"<html>")
    (False, False)
    """
    claimed = _ALIASES.get(mimetype, mimetype)
    if claimed in _SIGNED:
        return sniff(head) != claimed and not _has_other_signature(claimed, head)
    if claimed == "image/svg+xml" and sniff(head) == "application/x-gzip":
        return False  # a compressed image, .svgz
    if _is_text(claimed):
        return is_binary_data(head) and not head.startswith(_BYTE_ORDER_MARKS)
    kind, _, subtype = claimed.partition("/")
    if kind in ("audio", "font", "image", "video"):
        found = sniff(head)
        # Playlists and some old image formats are text; their subtypes are named like this. The
        # extension .ts means both MPEG (video/mp2t) and TypeScript, which is text.
        if found == "text/plain":
            return not subtype.startswith(("x-", "vnd.")) and subtype not in ("mpegurl", "mp2t")
        if found == "application/x-gzip":
            return False  # a compressed image, .emz or .wmz
        return found in _MARKUP or (found in _SIGNED and kind != found.partition("/")[0])
    return False


def _has_other_signature(mimetype: str, head: bytes) -> bool:
    """Return whether a file begins in a way that browsers do not recognise, but programs for files
    of this type do."""
    if mimetype == "application/zip":
        return head.startswith((b"PK\x05\x06", b"PK\x07\x08"))  # empty, or split into volumes
    if mimetype == "application/pdf":
        return b"%PDF-" in head[:1024]
    return mimetype == "image/x-icon" and sniff(head).startswith("image/")


def is_disguised(mimetype: str, head: bytes) -> bool:
    """Return whether a file declared as a harmless type is HTML or XML, which a browser might run.

    :param mimetype: a media type as :func:`accept_mimetype` returns it.
    :param head: the first :data:`SNIFF_BYTES` bytes of the file, or all bytes if it is shorter.

    >>> is_disguised("image/png", b" <html>"), is_disguised("text/plain", b"<html>")
    (True, False)
    """
    shown = mimetype.startswith(("audio/", "font/", "image/", "video/", "application/pdf"))
    return shown and not is_xml_mime_type(mimetype.encode()) and sniff(head) in _MARKUP


def is_media(mimetype: str) -> bool:
    """Return whether files of this type are raster images, audio or video. Browsers never run such
    files as code, whichever server sends them.

    >>> is_media("image/png"), is_media("image/svg+xml")
    (True, False)
    """
    return _MEDIA.fullmatch(mimetype) is not None and not is_xml_mime_type(mimetype.encode())


def is_shown(mimetype: str) -> bool:
    """Return whether browsers may show files of this type instead of saving them, given the
    security headers of our downloads."""
    return is_media(mimetype) or mimetype in ("application/pdf", "text/plain")


def served_type(mimetype: str) -> str:
    """Return the ``Content-Type`` with which our own server sends files of a type. Scripts are sent
    as text: with ``nosniff``, no page can run text as a script. What is no type at all, and may not
    fit into a header, is sent as bytes of any kind.

    >>> served_type("text/javascript"), served_type("image/svg+xml"), served_type("a\\nb")
    ('text/plain', 'image/svg+xml', 'application/octet-stream')
    """
    if not mimetype or not mimetype.isascii() or not mimetype.isprintable():
        return DEFAULT_MIMETYPE
    return "text/plain" if is_javascript_mime_type(mimetype.encode()) else mimetype


def _is_text(mimetype: str) -> bool:
    """Return whether files of this type consist of text."""
    name = mimetype.encode()
    return (
        mimetype.startswith("text/")
        or is_javascript_mime_type(name)
        or is_json_mime_type(name)
        or is_xml_mime_type(name)
    )
