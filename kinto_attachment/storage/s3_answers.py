"""What S3 answers: the bytes of an object, or that something is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ..blob import CHUNK
from ..errors import StorageError, StorageUnavailable

NOT_FOUND = {"NoSuchKey", "NotFound", "404"}
# The last three: an answer that lacks what S3 always says, or says nonsense; a connection cut.
UNAVAILABLE = (BotoCoreError, HTTPError, KeyError, ValueError, OSError)


@contextmanager
def translated(key: str, missing: type[StorageError] = StorageUnavailable) -> Iterator[None]:
    """What botocore says, in our words.

    :param missing: what a 404 is. Only who reads may say that a blob is not there: to who
        writes, it is a bucket that is gone or a server that is none of S3.
    """
    try:
        yield
    except ClientError as error:
        unknown = error.response["Error"]["Code"] in NOT_FOUND
        raise (missing if unknown else StorageUnavailable)(key, str(error)) from error
    except UNAVAILABLE as error:
        raise StorageUnavailable(key, f"{type(error).__name__}: {error}") from error


class S3Chunks(Iterator[bytes]):
    """The body of an answer, closed at its end or by :meth:`close`. Without one there are none."""

    def __init__(self, key: str, body: Any = None, length: int = 0):
        self._key = key
        self._body = body
        self.length = length

    def __next__(self) -> bytes:
        if self._body is None:
            raise StopIteration
        try:
            with translated(self._key):
                chunk = self._body.read(CHUNK)
        except StorageUnavailable:
            self.close()
            raise
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
