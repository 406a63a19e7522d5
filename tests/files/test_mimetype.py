"""Media types: whether bytes agree with them, and what they allow."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.files.mimetype import (
    SNIFF_BYTES,
    accept_mimetype,
    contradicts,
    is_disguised,
    is_media,
    is_shown,
    served_type,
    sniff,
)

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452")
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100")
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00"
WEBP = b"RIFF\x24\0\0\0WEBPVP8 "
BMP = b"BM\x3a\0\0\0\0\0"
ICON = bytes.fromhex("00000100")
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
ZIP = b"PK\x03\x04\x14\0\0\0"
GZIP = b"\x1f\x8b\x08\0\0\0\0\0"
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
OGG = b"OggS\0\x02\0\0"
WAVE = b"RIFF\x24\0\0\0WAVEfmt "
HTML = b"<!DOCTYPE html><script>alert(1)</script>"
XML = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
TEXT = b"plain text\n"
BINARY = bytes(range(256))


@pytest.mark.parametrize(
    "head, found",
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (WEBP, "image/webp"),
        (BMP, "image/bmp"),
        (PDF, "application/pdf"),
        (ZIP, "application/zip"),
        (GZIP, "application/x-gzip"),
        (MP4, "video/mp4"),
        (WAVE, "audio/wave"),
        (HTML, "text/html"),
        (b" \r\n\t" * 300 + HTML, "text/html"),
        (b"\n<ScRiPt>", "text/html"),
        (b"<html>", "text/html"),
        (XML, "text/xml"),
        (b"  " + XML, "text/xml"),
        (TEXT, "text/plain"),
        (b"  " + TEXT, "text/plain"),
        (b"", "text/plain"),
        (b" " * SNIFF_BYTES, "text/plain"),
        (b" " * 2 * SNIFF_BYTES + HTML, "text/plain"),  # beyond what browsers look at
        (BINARY, "application/octet-stream"),
        (b" " + BINARY, "application/octet-stream"),
        (b" " + PNG, "application/octet-stream"),
    ],
)
def test_sniff(head, found):
    assert sniff(head) == found


@given(
    st.lists(
        st.sampled_from(
            [b" ", b"\n", b"<", b"<htm", b"<!--", b"<?xm", b"%PD", b"\x89PN", b"RIFF", b"ftyp"]
        )
        | st.binary(max_size=4),
        max_size=40,
    )
)
def test_sniff_finds_a_type_for_any_bytes(parts):
    assert accept_mimetype(sniff(b"".join(parts)))


@pytest.mark.parametrize(
    "mimetype, head",
    [
        ("image/png", PNG),
        ("image/x-png", PNG),
        ("image/jpg", JPEG),
        ("image/vnd.microsoft.icon", ICON),
        ("image/svg+xml", XML),
        ("image/svg+xml", b"<svg/>"),
        ("image/svg+xml", GZIP),
        ("image/x-icon", PNG),
        ("application/zip", b"PK\x05\x06" + bytes(18)),
        ("application/vnd.rar", b"Rar!\x1a\x07\x01\0"),
        ("application/pdf", b"\xef\xbb\xbf%PDF-1.4"),
        ("video/mp2t", TEXT),
        ("image/avif", b"\0\0\0\x1cftypavif\0\0\0\0"),
        ("image/tiff", b"II*\0\x08\0\0\0"),
        ("image/x-xpixmap", b"/* XPM */"),
        ("application/gzip", GZIP),
        ("application/pdf", PDF),
        ("application/vnd.oasis.opendocument.text", ZIP),
        ("application/java-archive", ZIP),
        ("application/json", b'{"a": 1}'),
        ("application/json", b"\xff\xfe{\0}\0"),
        ("text/markdown", b"<p align=center>"),
        ("text/plain", HTML),
        ("text/plain", b"BM is how this begins"),
        ("text/plain", b""),
        ("text/javascript", b"alert(1)"),
        ("audio/wav", WAVE),
        ("audio/ogg", OGG),
        ("audio/mp4", MP4),
        ("video/quicktime", MP4),
        ("audio/x-mpegurl", b"#EXTM3U\n"),
        ("font/woff2", b"wOF2\0\x01\0\0"),
        ("application/octet-stream", HTML),
        ("application/vnd.fluent", TEXT),
    ],
)
def test_bytes_that_agree(mimetype, head):
    assert not contradicts(mimetype, head)


@pytest.mark.parametrize(
    "mimetype, head",
    [
        ("image/png", b""),
        ("image/png", HTML),
        ("image/png", JPEG),
        ("image/png", TEXT),
        ("image/jpg", PNG),
        ("image/avif", b"  " + HTML),
        ("image/tiff", TEXT),
        ("video/mp4", ZIP),
        ("image/svg+xml", PNG),
        ("application/pdf", HTML),
        ("application/pdf", TEXT),
        ("application/zip", PDF),
        ("application/json", PNG),
        ("text/plain", BINARY),
        ("text/html", GIF),
        ("audio/mpeg", HTML),
        ("audio/mpeg", TEXT),
        ("video/mp4", PNG),
        ("video/webm", XML),
        ("font/woff", HTML),
    ],
)
def test_bytes_that_contradict(mimetype, head):
    assert contradicts(mimetype, head)


@pytest.mark.parametrize("markup", [HTML, XML, b"\n " + HTML])
@pytest.mark.parametrize("mimetype", ["image/png", "application/pdf", "video/mp4", "image/unknown"])
def test_markup_in_disguise(mimetype, markup):
    assert is_disguised(mimetype, markup)


@pytest.mark.parametrize("mimetype", ["text/plain", "text/html", "image/svg+xml", "text/markdown"])
def test_markup_without_disguise(mimetype):
    assert not is_disguised(mimetype, HTML)


@pytest.mark.parametrize("mimetype", ["image/png", "image/webp", "audio/ogg", "video/mp4"])
def test_media_are_shown_everywhere(mimetype):
    assert is_media(mimetype) and is_shown(mimetype)


@pytest.mark.parametrize("mimetype", ["application/pdf", "text/plain"])
def test_shown_here_only(mimetype):
    assert is_shown(mimetype) and not is_media(mimetype)


@pytest.mark.parametrize(
    "mimetype",
    [
        "text/html",
        "image/svg+xml",
        "audio/x+xml",
        "video/svg+xml",
        "image/pngx",
        "application/json",
        "text/plainer",
        "text/css",
    ],
)
def test_never_shown(mimetype):
    assert not is_shown(mimetype) and not is_media(mimetype)


@pytest.mark.parametrize("mimetype", ["text/javascript", "application/x-javascript"])
def test_scripts_are_served_as_text(mimetype):
    assert served_type(mimetype) == "text/plain"


@given(st.text())
def test_mimetypes_are_ascii_or_none(mimetype):
    accepted = accept_mimetype(mimetype)
    assert accepted is None or re.fullmatch(r"[!-~]+/[!-~]+", accepted)
