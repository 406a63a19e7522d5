"""Whether files can be stored: by storing one."""

import logging
from collections.abc import Callable
from hashlib import sha256
from uuid import uuid4

from pyramid.request import Request
from pyramid.settings import asbool

from ..errors import BlobNotFound, StorageError
from ..files.blob import Source
from ..files.key import HEARTBEAT
from ..storage import IStorage

logger = logging.getLogger(__name__)

CONTENT = b"kinto-attachment is alive\n"


def heartbeat(storage: IStorage) -> Callable[[Request], bool]:
    """A check for Kinto's ``registry.heartbeats``: an object of its own is written, read back,
    compared and deleted. A server that is ``readonly`` only looks for one.
    """

    def check(request: Request) -> bool:
        key = f"{HEARTBEAT}/{uuid4().hex}.txt"
        try:
            if asbool(request.registry.settings.get("readonly")):
                return _is_reachable(storage, key)
            _put(storage, key)
            try:
                return b"".join(storage.open(key)) == CONTENT
            finally:
                storage.delete([key])
        except StorageError:
            logger.exception("The attachments storage does not work.")
            return False

    return check


def _is_reachable(storage: IStorage, key: str) -> bool:
    try:
        storage.stat(key)
    except BlobNotFound:
        return True
    return True


def _put(storage: IStorage, key: str) -> None:
    digest = sha256(CONTENT).hexdigest()
    with storage.spool() as file:
        file.write(CONTENT)
        storage.put(key, Source(file, "heartbeat.txt", "text/plain", len(CONTENT), digest))
