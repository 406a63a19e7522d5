"""Hashing large direct uploads in the background. The next ``complete`` attaches the file."""

import logging
from collections.abc import Iterator

import transaction

from ...errors import PartsMissing, UploadRefused
from ...finding import Finding
from ...media.verification import Hash, LeaseLost, Verification, committed
from ...plugin import Plugin
from ...rows.uploads import DirectUpload, State
from .whole import LeasedUpload, choose

logger = logging.getLogger(__name__)


class DirectVerification(Verification[DirectUpload]):
    """Direct uploads whose client has said that all bytes are there."""

    def __init__(self, plugin: Plugin):
        self._plugin = plugin
        self._rows = plugin.rows.direct

    def waiting(self) -> Iterator[DirectUpload]:
        return self._rows.verifying()

    def is_waiting(self, upload: DirectUpload) -> bool:
        return _waits(self._rows.get(upload.id))

    def name(self, upload: DirectUpload) -> tuple[str, str]:
        return upload.whole, f"{upload.intent.base}/uploads/{upload.id}"

    def verify(self, upload: DirectUpload, hash_of: Hash, holder: str) -> Finding:
        current = committed(lambda: self._rows.get(upload.id))
        if not _waits(current):
            raise LeaseLost()
        leased = LeasedUpload(self._plugin, transaction.manager, current, holder)
        named = dict(enumerate(current.etags, 1))
        try:
            try:
                leased.make_whole(choose(leased, named))
            except PartsMissing as error:
                raise UploadRefused(error.reason, error.field) from error
            leased.hash_whole(hash_of)
        except UploadRefused as error:
            leased.refuse(error)
            logger.warning("A direct upload was refused: %s: %s", self.name(current)[1], error)
            return Finding("refused", *self.name(leased.upload), error.reason)
        leased.save(leased.upload)
        return Finding("verified", *self.name(leased.upload))


def _waits(upload: DirectUpload | None) -> bool:
    return upload is not None and upload.state is State.VERIFYING and not upload.found
