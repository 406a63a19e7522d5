"""The body of a request, straight from the WSGI server."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, BinaryIO

from pyramid.authorization import Everyone
from pyramid.request import Request

from ..errors import (
    BodyTooLarge,
    EmptyBody,
    FieldRefused,
    MalformedForm,
    StorageUnavailable,
)
from ..files.blob import CHUNK, Digest

DRAIN_BYTES = 8 * 1024 * 1024
DRAIN_SECONDS = 5.0


class RequestBody:
    """The bytes of a request, read once and never past their end.

    :param environ: the WSGI environment. A missing ``CONTENT_LENGTH`` means a chunked body,
        which the server ends; ``Transfer-Encoding`` or ``wsgi.input_terminated`` says so.

    >>> body = RequestBody({"wsgi.input": BytesIO(b"abcdef"), "CONTENT_LENGTH": "3"})
    >>> body.length, body.read(), body.read()
    (3, b'abc', b'')
    """

    def __init__(self, environ: dict[str, Any]):
        self._environ = environ
        self._read = environ["wsgi.input"].read
        declared = environ.get("CONTENT_LENGTH") or ""
        chunked = "HTTP_TRANSFER_ENCODING" in environ or environ.get("wsgi.input_terminated")
        self.length: int | None = int(declared) if declared.isdigit() else None if chunked else 0
        """Bytes declared; None for a chunked body."""
        if self.length is None and "uwsgi.version" in environ:
            self._read = _read_chunk_of_uwsgi
        self._left = self.length
        self._closed = False

    def read(self) -> bytes:
        """The next bytes, :data:`CHUNK` of them or fewer (uWSGI gives what the client made a
        chunk, up to its ``chunked-input-limit``); empty at the end.

        :raises MalformedForm: the client went away.
        """
        size = CHUNK if self._left is None else min(CHUNK, self._left)
        if not size:
            return b""
        try:
            chunk = self._read(size)
        except Exception as error:
            # Servers each have their own: OSError, gunicorn's NoMoreData, uWSGI's IOError...
            raise MalformedForm(f"The request body could not be read ({error}).") from error
        if self._left is not None:
            self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Leave nothing to read to the code that comes after.

        What the client is still sending is read and dropped, a bounded amount of it for a
        bounded time: many clients only read the answer after they have sent everything.
        Again does nothing.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + DRAIN_SECONDS
        dropped = 0
        try:
            while dropped < DRAIN_BYTES and time.monotonic() < deadline and (chunk := self.read()):
                dropped += len(chunk)
        except MalformedForm:
            self._left = 0  # nobody is there to answer
        self._environ["wsgi.input"] = BytesIO()
        self._environ["CONTENT_LENGTH"] = "0"


def receive(
    body: RequestBody, spool: Callable[[], BinaryIO], max_size: int, hashed: bool = True
) -> tuple[BinaryIO, Digest]:
    """The whole body in a new file, for the caller to close, and what is known of it.

    :param spool: makes the file, see ``IStorage.spool``.
    :param max_size: bytes; 0 for any.
    :param hashed: whether to hash it on the way.
    :raises BodyTooLarge: as soon as it is known.
    :raises EmptyBody: there is none.
    :raises MalformedForm: the client went away, or sent less than it had announced.
    :raises StorageUnavailable: the spool takes no more.
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
            raise MalformedForm(f"{digest.size} bytes came, of {body.length}.", "body")
        if not digest.size:
            raise EmptyBody()
        with spooling():
            file.flush()
    except BaseException:
        with suppress(OSError):  # bytes that a full disk did not take
            file.close()
        raise
    return file, digest


@contextmanager
def spooling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable("spool", str(error)) from error


def _read_chunk_of_uwsgi(size: int) -> bytes:
    """uWSGI has chunked bodies in a place of its own, and nothing in ``wsgi.input``
    (https://uwsgi-docs.readthedocs.io/en/latest/Chunked.html)."""
    import uwsgi  # which is only there inside of uWSGI

    return uwsgi.chunked_read()


def owner_of(request: Request) -> str:
    """The principal whose entries and uploads are meant; nobody in particular is somebody too. Not
    known before the request is authenticated."""
    return request.prefixed_userid or Everyone


FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def flag(request: Request, name: str, default: bool) -> bool:
    """What the query says.

    :raises FieldRefused: neither yes nor no.
    """
    value = request.GET.get(name)
    return default if value is None else read_flag(value, name, "querystring")


def read_flag(value: str, name: str, location: str) -> bool:
    """
    :raises FieldRefused: neither yes nor no.
    """
    try:
        return FLAGS[value.lower()]
    except KeyError:
        reason = f"{value[:100]!r} is none of {', '.join(FLAGS)}"
        raise FieldRefused(reason, name, location) from None


def preferred_formats(request: Request) -> frozenset[str]:
    """Which newer formats of images the client says it knows. All accept ``*/*``, and few AVIF."""
    named = {str(each[0]).lower() for each in request.accept.parsed or () if each[1]}
    return frozenset(format for format in ("avif", "webp") if f"image/{format}" in named)
