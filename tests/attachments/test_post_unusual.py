"""Forms of clients that are not browsers, which WebOb reads too."""

import gzip
import json
import time
from base64 import b64encode
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import HTTP
from hashlib import sha256

import pytest

from tests.support.media import MediaClient
from tests.support.site import ALICE

FILES = {"local"}

CONTENT = bytes(range(256)) * 3 + b"\r\n--X\n--XX- \r"
TEXT = {"title": "naïve = ünï\r\ncode"}


@pytest.fixture
def record(make_site):
    return make_site("memory", "local").collection().record()


def form(
    content=CONTENT, headers="", disposition='filename="a.txt"', line="\r\n", after=""
) -> bytes:
    """A form with a file and the field ``data``.

    :param after: white space after each boundary.
    """
    parts = []
    for name, more, lines, body in (
        ("attachment", f"; {disposition}", headers, content),
        ("data", "", "", json.dumps(TEXT).encode()),
    ):
        head = f'--XX{after}{line}Content-Disposition: form-data; name="{name}"{more}{line}'
        parts.append(f"{head}{lines}{line}".encode() + body + line.encode())
    return b"".join(parts) + f"--XX--{after}{line}".encode()


def check(record, content=CONTENT, filename="a.txt"):
    attachment = record.check(content)
    assert attachment["filename"] == filename
    assert record.data["title"] == TEXT["title"]


@pytest.mark.parametrize("line", ["\r\n", "\n"])
@pytest.mark.parametrize("after", ["", " ", "\t  "])
def test_line_ends_and_white_space(record, line, after):
    record.post_raw(form(line=line, after=after), status=201)
    check(record)


@pytest.mark.parametrize("content", [b"", b"\r", b"\n", b"\r\n", b"--XXX", b"\r\n--XXX\r\n"])
@pytest.mark.parametrize("line", ["\r\n", "\n"])
def test_bytes_that_look_like_line_ends(record, line, content):
    record.post_raw(form(content, line=line), status=201)
    check(record, content)


def test_part_without_a_blank_line_of_its_own(record):
    empty = form(b"").replace(b"\r\n\r\n\r\n--XX", b"\r\n\r\n--XX", 1)
    assert empty != form(b"")
    record.post_raw(empty, status=201)
    check(record, b"")


@pytest.mark.parametrize("line", ["\r\n", "\n"])
def test_the_line_break_of_a_boundary_counts(record, line):
    """The headers end with one kind, the boundaries with another."""
    other = "\n" if line == "\r\n" else "\r\n"
    body = form(b"hello", line=line)
    body = body.replace(line.encode() + b"--XX", other.encode() + b"--XX")
    body = body.replace(b"--XX" + line.encode(), b"--XX" + other.encode())
    body = body.removesuffix(line.encode()) + other.encode()
    record.post_raw(body, status=201)
    check(record, b"hello")


@pytest.mark.parametrize("length", ["0", "5", "999999", "-1", "many"])
def test_content_length_of_a_part_is_ignored(record, length):
    record.post_raw(form(headers=f"Content-Length: {length}\r\n"), status=201)
    check(record)


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('filename*0="a lo"; filename*1="ng.txt"', "a long.txt"),
        ("filename*1=ng.txt; filename*0=a-lo", "a-long.txt"),
        ("filename*0*=utf-8'en'%e2%82%ac; filename*1=\"%20.txt\"", "€%20.txt"),
        ("filename*0*=utf-8''%e2%82; filename*1*=%ac.txt", "€.txt"),
        ("filename=\"good.txt\"; filename*=UTF-8''%ff.txt", "good.txt"),
        ("filename=\"good.txt\"; filename*=klingon''a.txt", "good.txt"),
        ('filename="good.txt"; filename*=nonsense', "good.txt"),
        ('filename*1="gap.txt"; filename="good.txt"', "good.txt"),
        (r'filename="a \"quoted\" name.txt"', 'a "quoted" name.txt'),
        ("filename=bare.txt", "bare.txt"),
        ("filename=\"good.txt\"; filename*=UTF-8''bad%zz.txt", "good.txt"),
        ("filename=\"good.txt\"; filename*=UTF-8''", "good.txt"),
    ],
)
def test_filename(record, disposition, filename):
    record.post_raw(form(disposition=disposition), status=201)
    check(record, filename=filename)


@pytest.mark.parametrize(
    "disposition", ["filename*=UTF-8''%ff.txt", "filename*=nonsense", 'filename*1="gap.txt"']
)
def test_filename_that_cannot_be_decoded(record, disposition):
    response = record.post_raw(form(disposition=disposition), status=400)
    assert response.json["message"].startswith("body: Filename cannot be decoded (")


def in_base64(content: bytes) -> bytes:
    text = b64encode(content)
    return b"\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def in_quoted_printable(content: bytes) -> bytes:
    lines = (content[at : at + 25] for at in range(0, len(content), 25))
    return b"=\r\n".join(b"".join(b"=%02X" % byte for byte in line) for line in lines)


ENCODINGS = {
    "base64": in_base64,
    "BASE64 ": b64encode,
    "quoted-printable": in_quoted_printable,
    "binary": bytes,
    "8bit": bytes,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 3_000_000])
def test_transfer_encoding_of_the_file(record, encoding, size):
    content = (CONTENT * (size // len(CONTENT) + 1))[:size]
    headers = f"Content-Transfer-Encoding: {encoding}\r\n"
    record.post_raw(form(ENCODINGS[encoding](content), headers), status=201)
    check(record, content)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("base64", b"YWJ"),
        ("base64", b"YWJj=YWJj"),
        ("base64", b"YQ==YQ=="),
        ("base64", b"Y_Jj"),
        ("base64", b"===="),
        ("quoted-printable", b"a=zz"),
        ("quoted-printable", b"a" * 70_000 + b"=3"),
        ("quoted-printable", b"x=y"),
    ],
)
def test_transfer_encoding_that_is_wrong(record, encoding, content):
    body = form(content, f"Content-Transfer-Encoding: {encoding}\r\n")
    response = record.post_raw(body, status=400)
    reason = f"'attachment' is not {encoding}, although its headers say so"
    assert response.json["message"] == f"body: {reason}"
    assert record.snapshot() == (404, None, None, None, [], [], [])


def test_transfer_encoding_that_is_unknown(record):
    body = form(headers="Content-Transfer-Encoding: x-uuencode\r\n")
    response = record.post_raw(body, status=400)
    assert "unknown Content-Transfer-Encoding (x-uuencode)" in response.json["message"]
    assert response.json["details"][0]["name"] == "attachment"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"hel= \r\nlo=3D  \r\n\r\nend \t", b"hello=\r\n\r\nend"),
        (b"=C3=\r\n=BC=", "ü".encode()),
        (b" a =20\nb", b" a  \nb"),
    ],
)
def test_blanks_and_line_breaks_in_quoted_printable(record, sent, stored):
    record.post_raw(form(sent, "Content-Transfer-Encoding: quoted-printable\r\n"), status=201)
    check(record, stored)


@pytest.mark.parametrize(
    "encoding", ["UTF-8", "8bit; foo", "quoted-printable", "Quoted-Printable; x=1", "x-uuencode"]
)
def test_text_with_any_transfer_encoding(record, encoding):
    """WebOb reads text as it is if the encoding is unknown, and keeps a stray equals sign."""
    head = b'name="data"\r\n'
    body = form().replace(head, head + f"Content-Transfer-Encoding: {encoding}\r\n".encode())
    record.post_raw(body, status=201)
    check(record)


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0b"])
def test_unusual_characters_in_a_header(record, separator):
    record.post_raw(form(headers=f"X-Title: a{separator}b\r\n"), status=201)
    check(record)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_an_encoded_file_cannot_be_endless(make_site, encoding):
    """White space and soft line breaks are no bytes of the file."""
    site = make_site("memory", "local", **{"kinto.attachment.max_size": "10000000"})
    nothing = b" \r\n" if encoding == "base64" else b"=\r\n"
    body = form(nothing * 3_000_000, f"Content-Transfer-Encoding: {encoding}\r\n")
    response = site.collection().record().post_raw(body, status=400)
    assert response.json["message"] == "body: The form has over 4194304 bytes besides its file."


def test_a_large_file_in_base64_below_the_limit(make_site):
    site = make_site("memory", "local", **{"kinto.attachment.max_size": "32000000"})
    record = site.collection().record()
    content = (CONTENT * (30_000_000 // len(CONTENT) + 1))[:30_000_000]
    body = form(in_base64(content), "Content-Transfer-Encoding: base64\r\n")
    record.post_raw(body, status=201)
    check(record, content)


def test_false_boundaries_cost_no_more_than_other_bytes(record):
    """A parser that looked at each of them took seconds."""
    content = b"\r\n--XX x" * 500_000
    begin = time.process_time()
    record.post_raw(form(content), status=201)
    assert time.process_time() - begin < 1.5
    check(record, content)


def test_max_size_counts_the_decoded_bytes(make_site):
    site = make_site("memory", "local", **{"kinto.attachment.max_size": "9000000"})
    record = site.collection().record()
    content = CONTENT * (9_000_000 // len(CONTENT))
    record.post_raw(form(b64encode(content), "Content-Transfer-Encoding: base64\r\n"), status=201)
    check(record, content)


@pytest.mark.parametrize("make", [MIMEApplication, lambda content: MIMEText("text: ü", "plain")])
def test_form_of_pythons_email_package(record, make):
    message = MIMEMultipart("form-data", boundary="XX", policy=HTTP)
    file, data = make(CONTENT), MIMEText(json.dumps(TEXT), "plain", "utf-8")
    file.add_header(
        "Content-Disposition", "form-data", name="attachment", filename=("utf-8", "", "été.txt")
    )
    data.add_header("Content-Disposition", "form-data", name="data")
    message.attach(file)
    message.attach(data)
    body = message.as_bytes(policy=HTTP).partition(b"\r\n\r\n")[2]
    assert b"base64" in body
    record.post_raw(body, status=201)
    check(record, file.get_payload(decode=True), "été.txt")


def test_no_file_was_chosen(record):
    """What a browser sends for an ``<input type="file">`` that its user has not touched."""
    body = form(b"", "Content-Type: application/octet-stream\r\n", 'filename=""')
    response = record.post_raw(body, status=400)
    assert response.json["message"] == "Attachment missing. No file was chosen."
    assert response.json["details"][0]["name"] == "attachment"
    response = record.post_raw(form(b"bytes", disposition='filename=""'), status=400)
    assert response.json["message"] == "body: Filename is required."
    response = record.post_raw(form(b"", disposition="x=1"), status=400)
    assert response.json["message"] == "body: Filename is required."


class TestContentEncoding:
    @pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x" * 300])
    def test_is_refused(self, record, encoding):
        headers = {"Content-Encoding": encoding}
        body, content_type = gzip.compress(form()), "multipart/form-data; boundary=XX"
        self.check(record.post(body, content_type, headers=headers, status=415))
        assert record.snapshot()[0] == 404

    @pytest.mark.parametrize("digest", ["", sha256(b"[]").hexdigest(), "stat"])
    def test_is_refused_by_the_media_store(self, record, digest):
        media = MediaClient(record.site)
        headers = {**ALICE, "Content-Encoding": "gzip", "Content-Type": "application/json"}
        self.check(media.post(gzip.compress(b"[]"), digest, headers=headers, status=415))
        assert media.keys(sha256(b"[]").hexdigest()) == []

    def check(self, response):
        assert response.headers["Accept-Encoding"] == "identity"
        assert "send the bytes as they are" in response.json["message"]
        assert response.json["details"][0]["name"] == "Content-Encoding"

    def test_identity_is_accepted(self, record):
        content_type = "multipart/form-data; boundary=XX"
        headers = {"Content-Encoding": "identity"}
        record.post(form(), content_type, headers=headers, status=201)
        check(record)
