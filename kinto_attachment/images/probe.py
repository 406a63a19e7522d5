"""Which stored blobs are images, and how large they are."""

from collections import OrderedDict

from ..files.blob import Blob
from ..storage import IStorage
from ..storage.stored_file import StoredFile
from .formats.header import ImageHeader, read_header

MAX_REMEMBERED = 10_000
"""Number of blobs whose headers a process remembers."""


class ImageProbe:
    """The reader of the headers of stored images.

    A key and a hash together always mean the same bytes, so each process remembers the headers that
    it has read.
    """

    def __init__(self, storage: IStorage):
        self._storage = storage
        self._known: OrderedDict[tuple[str, str], ImageHeader | None] = OrderedDict()

    def known(self, blob: Blob) -> ImageHeader | None:
        """Return the header if :meth:`of` has read it and this process still remembers it. This
        method never asks the storage."""
        return self._known.get((blob.key, blob.digest))

    def of(self, blob: Blob) -> ImageHeader | None:
        """Return the header of the image, or None if the blob is not an image.

        :raises BlobNotFound: if the storage does not have the blob.
        :raises BlobDamaged: if the blob is shorter than it should be.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        if (blob.key, blob.digest) in self._known:
            return self.known(blob)
        # Not all of the header is at the start of the file. The file is seekable, so that only the
        # needed parts are read from the storage.
        with StoredFile(self._storage, [(blob.key, blob.size)]) as file:
            header = read_header(file)
        self._known[blob.key, blob.digest] = header
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return header
