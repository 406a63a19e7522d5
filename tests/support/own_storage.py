"""A storage as another package may have it: it provides IStorage and nothing else.

``kinto.attachment.storage = tests.support.own_storage.OwnStorage``
"""

from collections import defaultdict
from datetime import datetime, timezone
from tempfile import TemporaryFile

from zope.interface import implementer

from kinto_attachment.errors import BlobNotFound, SettingError
from kinto_attachment.files.blob import CHUNK
from kinto_attachment.files.key import check_key
from kinto_attachment.storage import IStorage, Stat

_PLACES: dict[str, dict[str, tuple[bytes, datetime]]] = defaultdict(dict)


@implementer(IStorage)
class OwnStorage:
    """A storage in the memory of this process.

    :param place: a name. All storages with the same place share their objects.
    """

    exclusive = False

    def __init__(self, place: str, base_url: str = ""):
        self._blobs = _PLACES[place]
        self.base_url = base_url

    @classmethod
    def from_settings(cls, settings):
        if "place" not in settings.storage_options:
            raise SettingError("kinto.attachment.storage.place", "this storage needs a place")
        return cls(settings.storage_options["place"], settings["base_url"])

    def spool(self):
        return TemporaryFile()

    def put(self, key, source):
        self._blobs[check_key(key)] = b"".join(source.chunks()), datetime.now(timezone.utc)

    def open(self, key, start=0, end=None):
        return Chunks(self._find(key)[0][start:end])

    def stat(self, key):
        content, modified = self._find(key)
        return Stat(key, len(content), modified)

    def delete(self, keys):
        for key in keys:
            self._blobs.pop(check_key(key), None)

    def list(self, prefix=""):
        for key, (content, modified) in sorted(self._blobs.items()):
            if key.startswith(prefix):
                yield Stat(key, len(content), modified)

    def url(self, key):
        return self.base_url + check_key(key)

    def _find(self, key):
        try:
            return self._blobs[check_key(key)]
        except KeyError:
            raise BlobNotFound(key) from None


class Chunks:
    """The bytes of an object, as an iterator that can be closed."""

    def __init__(self, content):
        self._content = content
        self.length = len(content)

    def __iter__(self):
        return self

    def __next__(self):
        if not self._content:
            raise StopIteration
        chunk, self._content = self._content[:CHUNK], self._content[CHUNK:]
        return chunk

    def close(self):
        self._content = b""


class Incomplete:
    """A class that does not provide IStorage."""

    @classmethod
    def from_settings(cls, settings):
        return cls()
