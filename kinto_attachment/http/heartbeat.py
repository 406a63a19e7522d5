"""The heartbeat of the file storage: it works if a file can be stored."""

import logging
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from uuid import uuid4

from pyramid.request import Request
from pyramid.settings import asbool

from ..errors import BlobNotFound, StorageError
from ..files.blob import Source
from ..files.key import HEARTBEAT
from ..storage import IStorage
from ..transactions.ownership import OwnedStorage

logger = logging.getLogger(__name__)

CONTENT = b"kinto-attachment is alive\n"
"""The bytes that are stored."""


def heartbeat(storage: OwnedStorage) -> Callable[[Request], bool]:
    """Return a check for Kinto's ``registry.heartbeats``. It returns whether the storage works.

    The check writes an object, reads it back, compares it, and deletes it. On a server that is
    ``readonly``, it only asks the storage for an object that does not exist, and whether its folder
    is mounted.
    """

    def check(request: Request) -> bool:
        key = f"{HEARTBEAT}/{uuid4().hex}.txt"
        try:
            if asbool(request.registry.settings.get("readonly")):
                _reach(storage, key)
                storage.check_folder()
                return True
            _put(storage, key)
            try:
                return b"".join(storage.open(key)) == CONTENT
            finally:
                storage.delete([key])
        except StorageError:
            logger.exception("The file storage failed the heartbeat check.")
            return False

    return check


def _reach(storage: IStorage, key: str) -> None:
    """Ask the storage for a key that does not exist.

    :raises StorageUnavailable: if the storage does not respond.
    """
    with suppress(BlobNotFound):
        storage.stat(key)


def _put(storage: IStorage, key: str) -> None:
    digest = sha256(CONTENT).hexdigest()
    with storage.spool() as file:
        file.write(CONTENT)
        storage.put(key, Source(file, "heartbeat.txt", "text/plain", len(CONTENT), digest))
