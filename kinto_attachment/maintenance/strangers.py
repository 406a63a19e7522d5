"""What strangers have left in the bucket of the media library, whose name is public."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError

from ..library.collection import Library
from ..library.schema import metadata
from ..rows.paging import Row, keyset, records_of
from .server import Server

_KINTOS_OWN = {"id", "last_modified"}


@dataclass(frozen=True)
class Foreign:
    """One thing that no operator has put there.

    :param kind: ``foreign principal``, ``foreign group`` or ``foreign metadata``.
    :param uri: of the bucket, collection, group or record.
    :param detail: which permission, attribute or member.
    :param remove: removes it, in the caller's transaction; None for a member of a group that the
        operator has named: the operator has to decide.
    """

    kind: str
    uri: str
    detail: str
    remove: Callable[[], Any] | None


class Strangers:
    """A search for what strangers have left.

    :param permission: Kinto's permission backend (``registry.permission``).
    :param editors: principals that may write.
    :param authors: principals that may create, and write what they have created.
    :param readers: principals that may read.
    :param is_known: whether ``library init`` has made this library or taken it over before. If so,
        and if no stranger may write the bucket or the collection, authors wrote the records.
    """

    def __init__(
        self,
        server: Server,
        library: Library,
        permission: Any,
        *,
        editors: set[str],
        authors: set[str],
        readers: set[str],
        is_known: bool,
    ):
        self._server = server
        self._library = library
        self._permission = permission
        self._editors = editors
        self._authors = editors | authors
        self._named = editors | authors | readers
        self._is_known = is_known
        self._bucket_uri = f"/buckets/{library.bucket}"

    def find(self) -> Iterator[list[Foreign]]:
        """Yield pages of what was found. Each may be removed before the next one is read."""
        server = self._server
        found = list(server.run(partial(self._aces, (self._bucket_uri, self._library.uri))))
        is_seized = bool(found)
        if is_seized:
            found += server.run(lambda: list(self._metadata()))
        yield found
        for groups in keyset(partial(server.list_all, "group", self._bucket_uri)):
            yield server.run(partial(self._of_groups, groups, is_seized))
        if is_seized or not self._is_known:
            ids = {"bucket": self._library.bucket, "collection": self._library.collection}
            for records in records_of(server.list_all, **ids):
                uris = [ref.uri for ref in records]
                yield server.run(lambda uris=uris: list(self._aces(uris, self._may_own)))

    def forget_members(self) -> None:
        """Make the users who hold the principal of a group that the operator has named those who
        are its members. Kinto lets users keep it when the bucket of their group is deleted, so that
        the creator of an earlier bucket would be an editor."""
        for uri in self._named:
            folder, _, group_id = uri.rpartition("/")
            if folder == f"{self._bucket_uri}/groups":
                self._permission.remove_principal(uri)
                group = self._get("group", self._bucket_uri, group_id)
                for member in _members(group):
                    self._permission.add_user_principal(member, uri)

    def _aces(
        self, uris: Iterable[str], is_trusted: Callable[[str], bool] | None = None
    ) -> list[Foreign]:
        """Return what principals may write that are no editors, or create that are no authors
        either.

        :param is_trusted: returns whether a principal may write.
        """
        uris, found = list(uris), []
        is_trusted = is_trusted or self._editors.__contains__
        for uri, allowed in zip(uris, self._permission.get_objects_permissions(uris), strict=True):
            for name, principals in sorted(allowed.items()):
                if name == "write" or name.endswith(":create"):
                    may = is_trusted if name == "write" else self._authors.__contains__
                    found += [
                        self._ace(uri, name, each) for each in sorted(principals) if not may(each)
                    ]
        return found

    def _ace(self, uri: str, name: str, principal: str) -> Foreign:
        remove = partial(self._permission.remove_principal_from_ace, uri, name, principal)
        return Foreign("foreign principal", uri, f"{name} {principal}", remove)

    def _may_own(self, principal: str) -> bool:
        """Return whether the principal may have created a record. What an author creates, only the
        user may write, although the operator has named all users."""
        is_user = not principal.startswith(("/buckets/", "system."))
        everyone = {"system.Authenticated", "system.Everyone"}
        return principal in self._authors or (is_user and not everyone.isdisjoint(self._authors))

    def _metadata(self) -> Iterator[Foreign]:
        """Yield the attributes of bucket and collection that ``library init`` does not write."""
        bucket, collection = self._library.bucket, self._library.collection
        for name, parent, object_id, uri, known in (
            ("bucket", "", bucket, self._bucket_uri, set()),
            ("collection", self._bucket_uri, collection, self._library.uri, set(metadata())),
        ):
            for attribute in sorted(self._get(name, parent, object_id).keys() - known):
                if attribute not in _KINTOS_OWN:
                    remove = partial(self._remove_attribute, name, parent, object_id, attribute)
                    yield Foreign("foreign metadata", uri, attribute, remove)

    def _remove_attribute(self, name: str, parent: str, object_id: str, attribute: str) -> None:
        row = self._get(name, parent, object_id)
        kept = {key: row[key] for key in row if key not in (attribute, "last_modified")}
        self._server.records.update(name, parent, object_id, kept)

    def _get(self, name: str, parent: str, object_id: str) -> Row:
        try:
            return self._server.records.get(name, parent, object_id)
        except ObjectNotFoundError:
            return {}

    def _of_groups(self, groups: list[Row], is_seized: bool) -> list[Foreign]:
        """Return the groups that the operator has not named. Of those that the operator has named,
        return the foreign principals, and the members.

        :param is_seized: whether a stranger may write the bucket or the collection.
        """
        found = []
        for group in groups:
            uri = f"{self._bucket_uri}/groups/{group['id']}"
            aces = self._aces([uri])
            if not (aces or is_seized):
                continue
            if uri not in self._named:
                remove = partial(self._remove_group, group["id"])
                found.append(Foreign("foreign group", uri, "", remove))
                continue
            found += aces
            for member in sorted(set(_members(group)) - self._named):
                found.append(Foreign("foreign principal", uri, f"member {member}", None))
        return found

    def _remove_group(self, group_id: str) -> None:
        uri = f"{self._bucket_uri}/groups/{group_id}"
        self._server.records.delete("group", self._bucket_uri, group_id)
        allowed = self._permission.get_object_permissions(uri)
        for name, principals in allowed.items():
            for principal in principals:
                self._permission.remove_principal_from_ace(uri, name, principal)
        self._permission.remove_principal(uri)


def _members(group: Row) -> list[str]:
    members = group.get("members")
    return [each for each in members if isinstance(each, str)] if isinstance(members, list) else []
