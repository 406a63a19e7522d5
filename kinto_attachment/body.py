"""The body of a request, straight from the WSGI server."""

import time
from io import BytesIO
from typing import Any

from .blob import CHUNK
from .errors import MalformedForm

DRAIN_BYTES = 8 * 1024 * 1024
DRAIN_SECONDS = 5.0


class Body:
    """The bytes of a request, read once and never past their end.

    :param environ: the WSGI environment. A missing ``CONTENT_LENGTH`` means a chunked body,
        which the server ends; ``Transfer-Encoding`` or ``wsgi.input_terminated`` says so.

    >>> body = Body({"wsgi.input": BytesIO(b"abcdef"), "CONTENT_LENGTH": "3"})
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
        """The next bytes, :data:`~kinto_attachment.blob.CHUNK` of them or fewer (uWSGI gives what
        the client made a chunk, up to its ``chunked-input-limit``); empty at the end.

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


def _read_chunk_of_uwsgi(size: int) -> bytes:
    """uWSGI has chunked bodies in a place of its own, and nothing in ``wsgi.input``
    (https://uwsgi-docs.readthedocs.io/en/latest/Chunked.html)."""
    import uwsgi  # which is only there inside of uWSGI

    return uwsgi.chunked_read()
