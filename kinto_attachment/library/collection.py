"""The collection that the settings choose as the media library."""

from dataclasses import dataclass, field

from ..errors import SettingError
from ..files.ref import RecordRef, Ref
from ..remote.unsplash import Unsplash, open_unsplash
from ..settings import Settings
from ..settings.setting import INI_PREFIX


@dataclass(frozen=True)
class Library:
    """The collection whose records are ``_media`` objects: ``registry.attachment_library``.

    :param bucket: the id of its bucket.
    :param collection: its id.
    :param unsplash: the client that imports photos; None if no access key is configured.

    >>> Library("site", "media").holds(RecordRef("site", "media", "38e4e0f8"))
    True
    """

    bucket: str
    collection: str
    unsplash: Unsplash | None = field(default=None, compare=False)

    @property
    def uri(self) -> str:
        """The URI of the collection."""
        return self.ref("").collection_uri

    def ref(self, object_id: str) -> RecordRef:
        """Return the reference to the record that is the object of this id."""
        return RecordRef(self.bucket, self.collection, object_id)

    def holds(self, ref: Ref) -> bool:
        """Return whether the record is an object of the library."""
        return isinstance(ref, RecordRef) and ref.path[:2] == (self.bucket, self.collection)


def open_library(settings: Settings) -> Library | None:
    """Return the library that the settings choose, or None if ``library.bucket`` is empty.

    :raises SettingError: if ``library.collection`` is empty although there is a bucket, or if a
        setting of Unsplash is wrong.
    """
    unsplash = open_unsplash(settings)
    bucket, collection = settings["library.bucket"], settings["library.collection"]
    if bucket and not collection:
        raise SettingError(
            f"{INI_PREFIX}library.collection", "a library needs a collection: set its id"
        )
    return Library(bucket, collection, unsplash) if bucket else None
