"""What the doors read from a request: its body, its owner, flags, and accepted image formats."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO

from kinto.core.errors import raise_invalid
from pyramid.authorization import Everyone
from pyramid.request import Request

from ..errors import (
    BodyTooLarge,
    ClientTooSlow,
    ContentEncoded,
    EmptyBody,
    FieldRefused,
    JSONTooLarge,
    MalformedForm,
    StorageUnavailable,
)
from ..files.blob import CHUNK, Digest


class RequestBody:
    """The body of a request, taken directly from the WSGI server and read only once.

    :param environ: the WSGI environment. Without ``CONTENT_LENGTH``, the body is chunked if there
        is a ``Transfer-Encoding`` or ``wsgi.input_terminated``, and empty otherwise. The server
        marks the end of a chunked body.

    >>> body = RequestBody({"wsgi.input": BytesIO(b"abcdef"), "CONTENT_LENGTH": "3"})
    >>> body.length, body.read(), body.read()
    (3, b'abc', b'')
    """

    def __init__(self, environ: dict[str, Any]):
        self._environ = environ
        self._read = environ["wsgi.input"].read
        self._trust = getattr(environ["wsgi.input"], "trust", None)
        declared = environ.get("CONTENT_LENGTH") or ""
        chunked = "HTTP_TRANSFER_ENCODING" in environ or environ.get("wsgi.input_terminated")
        self.length: int | None = int(declared) if is_decimal(declared) else None if chunked else 0
        """The size that the client declared, in bytes; None for a chunked body."""
        if self.length is None and "uwsgi.version" in environ:
            self._read = _read_chunk_of_uwsgi
        self._remaining = self.length
        self._closed = False

    def read(self) -> bytes:
        """Return the next bytes, at most :data:`CHUNK` of them, or no bytes at the end. Call this
        only after the permission of the client was checked.

        If the body is chunked, uWSGI returns one chunk as the client sent it instead, of up to
        ``chunked-input-limit`` bytes.

        :raises ContentEncoded: if the body is compressed.
        :raises MalformedForm: if the body cannot be read, usually because the client has closed the
            connection.
        """
        encoding = self._environ.get("HTTP_CONTENT_ENCODING", "").strip()
        if encoding.lower() not in ("", "identity"):
            raise ContentEncoded(encoding)
        size = CHUNK if self._remaining is None else min(CHUNK, self._remaining)
        if not size:
            return b""
        if self._trust:
            self._trust()
        with receiving():
            chunk = self._read(size)
        if self._remaining is not None:
            self._remaining -= len(chunk)
        return chunk

    def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        :param limit: the largest accepted size, in bytes.
        :raises JSONTooLarge: if the body is larger, before it is read where its size is declared.
        :raises MalformedForm: if the body cannot be read.
        """
        content = bytearray()
        size = self.length or 0
        while size <= limit and (chunk := self.read()):
            content += chunk
            size = max(size, len(content))
        if size > limit:
            raise JSONTooLarge(size, limit)
        return bytes(content)

    def close(self) -> None:
        """Leave an empty body to the code that comes after. Idempotent.

        What the client is still sending is dropped once the response has been sent, see
        :mod:`kinto_attachment.http.slow_clients`.
        """
        if self._closed:
            return
        self._closed = True
        self._environ["wsgi.input"] = BytesIO()
        self._environ["CONTENT_LENGTH"] = "0"


def is_decimal(text: str) -> bool:
    """Return whether the text is a number in ASCII digits. ``str.isdigit`` also accepts ``²``."""
    return text.isascii() and text.isdigit()


def receive(
    body: RequestBody, spool: Callable[[], BinaryIO], max_size: int, hashed: bool = True
) -> tuple[BinaryIO, Digest]:
    """Receive the whole body in a new file. Return the file, which the caller closes, and the size
    and hash of the body.

    :param spool: makes the file, see ``IStorage.spool``.
    :param max_size: the largest accepted body in bytes; 0 for no limit.
    :param hashed: whether to hash the bytes while they are received.
    :raises BodyTooLarge: if the body is over the limit, as soon as that is certain.
    :raises EmptyBody: if the body has no bytes.
    :raises MalformedForm: if the body cannot be read, or is shorter than the client declared.
    :raises StorageUnavailable: if the file cannot be written.
    """
    if max_size and (body.length or 0) > max_size:
        raise BodyTooLarge(body.length, max_size)
    file, digest = spool(), Digest(hashed)
    try:
        while chunk := body.read():
            digest.update(chunk)
            if max_size and digest.size > max_size:
                raise BodyTooLarge(max(digest.size, body.length or 0), max_size)
            with spooling():
                file.write(chunk)
        if digest.size < (body.length or 0):
            raise MalformedForm(
                f"The body ended after {digest.size} of {body.length} bytes.", "body"
            )
        if not digest.size:
            raise EmptyBody()
        with spooling():
            file.flush()
    except BaseException:
        with suppress(OSError):  # closing flushes, which fails again if the disk is full
            file.close()
        raise
    return file, digest


@contextmanager
def receiving(field: str | None = None) -> Iterator[None]:
    """Run a block that reads the body of a request.

    :param field: the field that the error names, see :class:`~kinto_attachment.errors.Refused`.
    :raises ClientTooSlow: if the client was too slow.
    :raises MalformedForm: in place of any other error. Each server raises errors of its own, such
        as ``OSError`` or gunicorn's ``NoMoreData``.
    """
    try:
        yield
    except ClientTooSlow:
        raise
    except Exception as error:
        raise MalformedForm(f"The request body could not be read ({error}).", field) from error


@contextmanager
def spooling() -> Iterator[None]:
    """Run a block that writes to a spool.

    :raises StorageUnavailable: in place of an ``OSError``, such as that of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise StorageUnavailable("spool", str(error)) from error


def _read_chunk_of_uwsgi(size: int) -> bytes:
    """Return the next chunk of a chunked body. uWSGI offers these through a function, not through
    ``wsgi.input`` (https://uwsgi-docs.readthedocs.io/en/latest/Chunked.html)."""
    import uwsgi  # exists only inside uWSGI

    return uwsgi.chunked_read()


_CONDITION = re.compile(r'"([0-9]{1,20})"|(\*)')


def read_conditions(request: Request) -> tuple[int | str | None, int | str | None]:
    """Return ``If-Match`` and ``If-None-Match`` of a record, each a timestamp, ``*`` or None.

    :raises HTTPBadRequest: if one of them is malformed. Kinto's own check lets some values pass
        that make it fail later, such as ``*,*``.
    """
    read = []
    for name in ("If-Match", "If-None-Match"):
        value = request.headers.get(name) or None
        match = _CONDITION.fullmatch(value or "*")
        if match is None:
            reason = "The value should be integer between double quotes."
            raise_invalid(request, "header", name, reason)
        read.append(None if value is None else int(match[1]) if match[1] else "*")
    return read[0], read[1]


def owner_of(request: Request) -> str:
    """Return the principal that owns what this request stores. Anonymous requests share
    ``system.Everyone``. Call this only after the request was authenticated."""
    return request.prefixed_userid or Everyone


FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""The accepted values of a flag, in lower case."""


def flag(request: Request, name: str, default: bool) -> bool:
    """Return the flag of that name in the query string, or the default if there is none.

    :raises FieldRefused: if its value is not one of :data:`FLAGS`.
    """
    value = request.GET.get(name)
    return default if value is None else read_flag(value, name, "querystring")


def read_flag(value: str, name: str, location: str) -> bool:
    """Return whether the value of a flag means yes.

    :param name: the field that has the value.
    :param location: where the field is; see :class:`~kinto_attachment.errors.Refused`.
    :raises FieldRefused: if the value is not one of :data:`FLAGS`, in upper or lower case.
    """
    try:
        return FLAGS[value.lower()]
    except KeyError:
        reason = f"{name} must be one of {', '.join(FLAGS)}, not {value[:100]!r}"
        raise FieldRefused(reason, name, location) from None


def preferred_formats(request: Request) -> frozenset[str]:
    """Return which of ``avif`` and ``webp`` the client names in ``Accept``. ``*/*`` does not count,
    because clients send it even if they cannot show these formats."""
    named = {str(each[0]).lower() for each in request.accept.parsed or () if each[1]}
    return frozenset(format for format in ("avif", "webp") if f"image/{format}" in named)
