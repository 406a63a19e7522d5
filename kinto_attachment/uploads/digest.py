"""A SHA-256 that one process begins and another one continues."""

import binascii
from base64 import b64decode, b64encode
from importlib.metadata import version
from typing import Any

from ..files.blob import Digest

try:
    from rehashes import PySha256
except ImportError:  # it has wheels for Linux only
    PySha256 = None

_FORMAT = f"rehashes-{version('rehashes')}" if PySha256 else ""


class RunningDigest(Digest):
    """The digest of all bytes of an upload up to some offset.

    Without the extra ``[resumable]``, a digest cannot be continued in another request. It is then
    incomplete, and the file has to be read again in the end.

    :param state: what :attr:`state` was after the bytes before; empty at the start.
    :param size: how many bytes came before.
    """

    def __init__(self, state: str = "", size: int = 0):
        running = _restore(state) if size else PySha256 and PySha256()
        self.is_complete = running is not None or not size
        """Whether the digest is that of all bytes, and not only of the last ones."""
        super().__init__(hashed=running is None and self.is_complete)
        self._running = running
        self.size = size

    @property
    def state(self) -> str:
        """Text from which another process can continue; empty if none can."""
        if self._running is None:
            return ""
        return f"{_FORMAT}:{b64encode(self._running.serialize()).decode()}"

    def update(self, chunk: bytes) -> None:
        """Add the next bytes."""
        if self._running is not None:
            self._running.update(chunk)
            self.size += len(chunk)
        else:
            super().update(chunk)

    def hexdigest(self) -> str:
        """Return 64 characters of lowercase hex, or an empty string if the digest is incomplete.
        No further bytes can be added."""
        return super().hexdigest() if self._running is None else self._running.finalize()


def _restore(state: str) -> Any:
    """Return the hash that has this state, or None if this process cannot continue it: it has
    another version of the library, or none."""
    written, _, encoded = state.partition(":")
    if not PySha256 or written != _FORMAT:
        return None
    try:
        return PySha256.deserialize(b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return None
