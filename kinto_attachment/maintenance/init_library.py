"""Creating the collection of the media library, with what Kinto Admin needs to show it."""

from collections.abc import Iterator
from typing import Any

from kinto.core.storage import Filter
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import COMPARISON

from ..errors import SettingError
from ..finding import Finding
from ..library.collection import Library
from ..library.schema import metadata
from .server import Server


def init_library(
    server: Server,
    library: Library | None,
    permission: Any,
    *,
    editors: list[str],
    authors: list[str],
    readers: list[str],
    dry_run: bool = False,
) -> Iterator[Finding]:
    """Create the bucket and the collection that the settings name, or bring them up to date.
    Yields ``created``, ``updated`` or ``allowed`` for each change.

    :param permission: ``registry.permission``.
    :param editors: principals that may write everything in it, and the collection itself.
    :param authors: principals that may make objects, and write their own.
    :param readers: principals that may see everything in it.
    :raises SettingError: if no library is configured, or if its collection has other records.
    """
    if library is None:
        raise SettingError("kinto.attachment.library.bucket", "is not set: there is no library")
    bucket_uri = f"/buckets/{library.bucket}"
    _check_records(server, library)
    for name, parent, folder, object_id, data in (
        ("bucket", "", "/buckets", library.bucket, {}),
        ("collection", bucket_uri, f"{bucket_uri}/collections", library.collection, metadata()),
    ):
        kind = _write(server, name, parent, object_id, data, dry_run)
        if kind:
            yield Finding(kind, record=f"{folder}/{object_id}")
    for name, principals in (("write", editors), ("record:create", authors), ("read", readers)):
        for principal in principals:
            allow = (library.uri, name, principal)
            if _allow(server, permission, allow, dry_run):
                yield Finding("allowed", record=library.uri, detail=f"{name} {principal}")


def _allow(server: Server, permission: Any, allow: tuple[str, str, str], dry_run: bool) -> bool:
    """Give a permission; return False if the principal had it already."""
    uri, name, principal = allow
    (allowed,) = server.run(lambda: permission.get_objects_permissions([uri]))
    if principal in allowed.get(name, ()):
        return False
    if not dry_run:
        server.run(lambda: permission.add_principal_to_ace(*allow))
    return True


def _check_records(server: Server, library: Library) -> None:
    others = [Filter("fileName", False, COMPARISON.HAS)]
    if server.list_all("record", library.uri, filters=others, limit=1):
        raise SettingError(
            "kinto.attachment.library.collection",
            f"{library.uri} has records that are no media: choose another one",
        )


def _write(
    server: Server, name: str, parent: str, object_id: str, data: dict[str, Any], dry_run: bool
) -> str:
    """Create or update a bucket or collection; return what was done, or an empty string."""

    def write() -> str:
        try:
            old = server.records.get(name, parent, object_id)
        except ObjectNotFoundError:
            if not dry_run:
                server.records.create(name, parent, {**data, "id": object_id})
            return "created"
        if data.items() <= old.items():
            return ""
        if not dry_run:
            new = {**old, **data}
            new.pop("last_modified")
            server.records.update(name, parent, object_id, new)
        return "updated"

    return server.run(write)
