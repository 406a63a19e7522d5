"""Multipart bodies that arrive in any pieces, and with any content."""

import io
from base64 import encodebytes
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.errors import MalformedForm, NotMultipart, Refused
from kinto_attachment.http.forms import FileField, FormReader, read_boundary
from kinto_attachment.http.requests import RequestBody

FIELDS = {"attachment": FileField("attachment")}


class BodyInPieces(io.RawIOBase):
    """A body that arrives in pieces of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]):
        self._data, self._sizes = data, sizes or [1]
        self._turn = 0

    def read(self, size=-1):
        limit = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        chunk, self._data = self._data[: min(size, limit)], self._data[min(size, limit) :]
        return chunk


def body_of(data: bytes, sizes: list[int] | None = None) -> RequestBody:
    stream = BodyInPieces(data, sizes) if sizes else io.BytesIO(data)
    return RequestBody({"wsgi.input": stream, "CONTENT_LENGTH": str(len(data))})


def form(content: bytes, data: str, order: bool, line="\r\n", after="") -> bytes:
    """A form with a file and the field ``data``.

    :param order: whether the file comes first.
    :param line: a line break.
    :param after: white space after each boundary.
    """
    head = f"--XX{after}{line}Content-Disposition: form-data; name="
    parts = [
        f'{head}"attachment"; filename="a"{line * 2}'.encode() + content + line.encode(),
        f'{head}"data"{line * 2}{data}{line}'.encode(),
    ]
    return b"".join(parts if order else parts[::-1]) + f"--XX--{line}".encode()


def in_memory(received):
    return io.BytesIO()


PIECES = st.lists(st.integers(1, 40), min_size=1, max_size=5)
# With many line breaks and beginnings of boundaries.
CONTENT = st.lists(
    st.binary(max_size=20)
    | st.sampled_from([b"\r", b"\n", b"-", b"--X", b"\r\n--X", b"\n--", b" "]),
    max_size=20,
).map(b"".join)


@given(
    CONTENT.filter(lambda content: b"--XX" not in content),
    st.text(max_size=50).filter(lambda text: "--XX" not in text),
    st.booleans(),
    st.sampled_from(["\r\n", "\n"]),
    st.sampled_from(["", " ", " \t"]),
    PIECES,
)
def test_a_form_in_any_pieces(content, data, order, line, after, sizes):
    reader = FormReader(in_memory, FIELDS)
    read = reader.read(body_of(form(content, data, order, line, after), sizes), "XX")
    assert read.file.file.getvalue() == content
    assert read.file.digest.hexdigest() == sha256(content).hexdigest()
    assert read.fields["data"] == data


@given(st.binary(max_size=500), st.lists(st.integers(1, 100), min_size=1, max_size=3))
def test_any_bytes_are_read_or_refused(data, sizes):
    with pytest.raises(Refused):
        FormReader(in_memory, FIELDS).read(body_of(data, sizes), "never-in-there")


@given(
    st.integers(0, 400),
    st.integers(1, 8),
    st.binary(max_size=8),
    st.lists(st.integers(1, 100), min_size=1, max_size=3),
)
def test_damaged_forms_are_read_or_refused(at, length, damage, sizes):
    good = form(b"content" * 10, '{"family": "sans"}', True)
    bad = good[:at] + damage + good[at + length :]
    spools = []

    def spool(received):
        spools.append(io.BytesIO())
        return spools[-1]

    try:
        FormReader(spool, FIELDS).read(body_of(bad, sizes), "XX").file.file.close()
    except Refused as refused:
        assert refused.reason
    assert all(file.closed for file in spools)


@given(st.text(max_size=100))
def test_any_content_type_is_understood_or_refused(content_type):
    try:
        assert read_boundary(content_type)
    except (NotMultipart, MalformedForm) as refused:
        assert refused.reason


@given(CONTENT, PIECES, st.booleans())
def test_the_pieces_make_no_difference(content, sizes, cut):
    """Also of forms that are broken, or whose file looks like a boundary."""
    whole = form(content, "{}", True)[: -20 if cut else None]

    def read(sizes):
        try:
            form = FormReader(in_memory, FIELDS).read(body_of(whole, sizes), "XX")
        except Refused as refused:
            return refused.reason
        return form.fields, form.file.file.getvalue()

    assert read(sizes) == read(None)


@given(st.binary(max_size=300), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_an_encoded_file_in_any_pieces(content, sizes):
    for encoding, encoded in (
        ("base64", encodebytes(content)),
        ("quoted-printable", b"".join(b"=%02X=\n" % byte for byte in content)),
    ):
        body = form(encoded, "{}", True).replace(
            b'filename="a"', b'filename="a"\r\nContent-Transfer-Encoding: ' + encoding.encode(), 1
        )
        read = FormReader(in_memory, FIELDS).read(body_of(body, sizes), "XX")
        assert read.file.file.getvalue() == content
        assert read.file.digest.size == len(content)


def test_body_is_never_read_past_its_end():
    stream = io.BytesIO(b"abcdef")
    body = RequestBody({"wsgi.input": stream, "CONTENT_LENGTH": "4"})
    assert body.read() == b"abcd"
    assert body.read() == b""
    assert stream.tell() == 4


def test_body_without_length_is_empty_unless_chunked():
    assert RequestBody({"wsgi.input": io.BytesIO(b"abc")}).read() == b""
    chunked = {"wsgi.input": io.BytesIO(b"abc"), "HTTP_TRANSFER_ENCODING": "chunked"}
    assert RequestBody(chunked).read() == b"abc"
    terminated = {"wsgi.input": io.BytesIO(b"abc"), "wsgi.input_terminated": True}
    assert RequestBody(terminated).read() == b"abc"


def test_close_reads_nothing_and_leaves_an_empty_body():
    stream = io.BytesIO(b"x" * 1000)
    environ = {"wsgi.input": stream, "CONTENT_LENGTH": "1000"}
    RequestBody(environ).close()
    assert stream.tell() == 0
    assert (environ["wsgi.input"].read(), environ["CONTENT_LENGTH"]) == (b"", "0")
