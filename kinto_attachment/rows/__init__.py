"""Everything that this plugin keeps in Kinto's storage.

No other package knows how these rows look. They are objects of Kinto's own storage, below parents
outside ``/buckets/``, so that Kinto does not delete them together with a bucket:

====================  ==============================  ==================  =======================
resource_name         parent_id                       id                  data
====================  ==============================  ==================  =======================
attachment-link       /attachment-links/              ``own:{key}`` or    ``hash``, ``record``,
                      {bucket}/{coll.}/{record}       ``shared:{key}``    ``filename``,
                      [/{field}[/{entry}]]                                ``mimetype``, ``size``
attachment-former     that of the links of the field  hash of the value
attachment-release    /attachment-releases/{id}       random              ``rule``, ``keys``
attachment-claim      /attachment-claims/{random}     key
attachment-doom       /attachment-dooms               random              ``keys``
attachment-turn       /attachment-turns/{its hash}    key                 ``holder``
attachment-pending    /attachment-pending/{id}        ``pending{uuid}``   ``owner``, ``hash``,
                                                                          ``key``, ``mimetype``,
                                                                          ``size``
attachment-lease      /attachment-leases/{id}         that of the upload  ``holder``
attachment-unclaimed  /attachment-unclaimed/{id}      that of the upload  ``owner``, ``facts``,
                                                                          ``attachment``,
                                                                          ``defaults``
attachment-upload     /attachment-uploads/{id}        random              ``intent``, ``length``,
                                                                          ``metadata``,
                                                                          ``concat``, ``result``
attachment-segment    /attachment-segments/           ``{upload}-``       ``key``, ``size``,
                      {id of the upload}              ``{offset}``        ``state``
attachment-direct     /attachment-direct/{id}         random              ``intent``, ``size``,
                                                                          ``parts``, ``whole``,
                                                                          ``state``, ``result``,
                                                                          ...
attachment-part       /attachment-parts/              ``{upload}-``       ``key``, ``size``,
                      {id of the upload}/{random}     ``{number}-``       ``digest``
                                                      ``{random}``
attachment-variant    /attachment-variants/           key of the          ``key``, ``digest``,
                      {name}-{8 digits}               original            ``size``, ``mimetype``,
                                                                          ``width``, ``height``,
                                                                          ``name``, ``direct``
attachment-identity   /attachment-identity            hash of the         ``owner``, ``folders``,
                                                      database's name     ``nonces``
attachment-grant      /attachment-grants              ``library``         ``editors``,
                      {URI of the collection}                             ``authors``
====================  ==============================  ==================  =======================

The rows of the field ``attachment`` lie at its record: they are older than the other fields.

Two rules shape them:

* The primary key of Kinto's table begins with the id. Whatever is looked up across all parents is
  therefore an id: the key of a link, the key of the original of a variant.
* ``(parent_id, resource_name, last_modified)`` is unique. Rows that concurrent requests write
  therefore have parents of their own, or the requests would fail with a 409.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .deletion import Releases, Reservations, Rule
from .former import FormerAttachments
from .grants import Grants
from .identity import Identities
from .links import Link, Links
from .paging import UnreadableRow
from .record_lock import RecordLocks
from .turns import Turns
from .uploads import (
    DirectUploads,
    Leases,
    PendingUploads,
    ResumableUploads,
    UnclaimedUploads,
)
from .variants import Variants

__all__ = ["KeyKind", "KnownKey", "Rows"]


class KeyKind(Enum):
    """What kind of row names a key."""

    LINK = "link"
    RELEASE = "release"
    PENDING = "pending"
    VARIANT = "variant"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class KnownKey:
    """A key that a row names.

    :param rule: what becomes of the bytes once the row is gone. Those of an unreadable row stay.
    :param link: the link, for a key of :attr:`KeyKind.LINK`.
    """

    key: str
    kind: KeyKind
    rule: Rule
    link: Link | None = None


class Rows:
    """All rows of this plugin. Every method of its members works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self.storage = storage
        self.links = Links(storage)
        self.former = FormerAttachments(storage)
        self.releases = Releases(storage)
        self.reservations = Reservations(storage)
        self.turns = Turns(storage)
        self.pending = PendingUploads(storage)
        self.unclaimed = UnclaimedUploads(storage)
        self.resumable = ResumableUploads(storage)
        self.direct = DirectUploads(storage)
        self.leases = Leases(storage)
        self.variants = Variants(storage)
        self.grants = Grants(storage)
        self.identities = Identities(storage)
        self.locks = RecordLocks(storage)

    @property
    def rolls_back(self) -> bool:
        """Whether an aborted transaction undoes what was written. Kinto's memory storage does not
        roll back, nor does PostgreSQL with ``transaction_per_request = false``."""
        client = getattr(self.storage, "client", None)
        return client is not None and not client.commit_manually

    def is_in_use(self, key: str, since: int) -> bool:
        """Return whether a key belongs to an owner, or is about to be deleted.

        :param since: a deletion that began before then has ended; in milliseconds since 1970.
        """
        if self.links.having(key):
            return True
        return self.links.lost_since(key, since) and self.releases.has(key)

    def known_keys(self) -> Iterator[KnownKey]:
        """Yield every key that a row names, read a page at a time. A key that rows of several kinds
        name is yielded several times, but only once for all its links."""
        for link in self.links.one_of_each_key():
            yield KnownKey(link.key, KeyKind.LINK, Rule.of(link.shared, keep_old=False), link)
        yield from self.unlinked_keys()

    def unlinked_keys(self) -> Iterator[KnownKey]:
        """Yield every key that a row other than a link names, and every key that an unreadable row
        may name."""
        for upload in self.pending.all():
            yield KnownKey(upload.key, KeyKind.PENDING, Rule.DELETE)
        for segment in self.resumable.all_segments():
            if segment.key:
                yield KnownKey(segment.key, KeyKind.PENDING, Rule.DELETE)
        for direct in self.direct.all():
            for key in direct.keys:
                yield KnownKey(key, KeyKind.PENDING, Rule.DELETE)
        for part in self.direct.all_parts():
            yield KnownKey(part.key, KeyKind.PENDING, Rule.DELETE)
        for variant in self.variants.all():
            yield KnownKey(variant.key, KeyKind.VARIANT, Rule.DELETE)
        for release in self.releases.all():
            for key in release.keys:
                yield KnownKey(key, KeyKind.RELEASE, release.rule)
        for broken in self.unreadable():
            for key in broken.keys:
                yield KnownKey(key, KeyKind.UNREADABLE, Rule.KEEP)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read, of any kind. Leases are left out: they expire."""
        for rows in (
            self.links,
            self.pending,
            self.variants,
            self.releases,
            self.unclaimed,
            self.resumable,
            self.direct,
            self.reservations,
            self.grants,
        ):
            yield from rows.unreadable()
