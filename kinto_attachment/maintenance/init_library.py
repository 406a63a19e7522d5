"""Creating the collection of the media library, with the metadata that Kinto Admin needs."""

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
from .strangers import Foreign, Strangers

TAKE_OVER = "kinto-attachment library init --take-over"
CHECK_MEMBER = "remove it from the group, unless you trust it"


def init_library(
    server: Server,
    library: Library | None,
    permission: Any,
    *,
    editors: list[str],
    authors: list[str],
    readers: list[str],
    take_over: bool = False,
    dry_run: bool = False,
) -> Iterator[Finding]:
    """Create the bucket and the collection that the settings name, or bring them up to date.
    Yields ``created``, ``updated``, ``allowed`` or ``removed`` for each change. Yields ``foreign
    principal``, ``foreign group`` or ``foreign metadata`` for whatever stops the command, because a
    stranger may have made it.

    :param library: the library that the settings configure; None if they configure none.
    :param permission: Kinto's permission backend (``registry.permission``).
    :param editors: principals that may write everything in it, and the attributes of the
        collection. Only those that may write the bucket can delete the collection.
    :param authors: principals that may create objects, and write their own.
    :param readers: principals that may read everything in it.
    :param take_over: whether to remove that instead. A group that an operator has named keeps its
        members; each is a ``group member``.
    :param dry_run: change nothing.
    :raises SettingError: if no library is configured, if its collection contains records that are
        not media, or if other principals may write or create there.
    """
    if library is None:
        raise SettingError("kinto.attachment.library.bucket", "set it to have a media library")
    bucket_uri = f"/buckets/{library.bucket}"
    _check_records(server, library)
    known_editors, known_authors = server.run(lambda: server.plugin.rows.grants.of(library.uri))
    trusted = known_editors | set(editors), known_authors | set(authors)
    strangers = Strangers(
        server,
        library,
        permission,
        editors=trusted[0],
        authors=trusted[1],
        readers=set(readers),
        is_known=bool(known_editors or known_authors),
    )
    found = False
    for page in strangers.find():
        found = found or bool(page)
        yield from _findings(page, take_over)
        if page and take_over and not dry_run:
            server.run(lambda page=page: _remove(server, library, page))
    if found and not take_over:
        raise SettingError(
            "kinto.attachment.library.bucket",
            f"other principals may write to {bucket_uri} or create objects in it, so a stranger "
            "may have created it. Choose another bucket, name the principals that you trust in "
            "--editors or --authors, or remove the others, and what they have made, with "
            "--take-over",
        )
    if not dry_run:
        server.run(strangers.forget_members)
        server.run(lambda: server.plugin.rows.grants.save(library.uri, *trusted))
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


def _findings(page: list[Foreign], take_over: bool) -> Iterator[Finding]:
    for each in page:
        if not take_over:
            yield Finding(each.kind, record=each.uri, detail=each.detail, remedy=TAKE_OVER)
        elif each.remove:
            yield Finding("removed", record=each.uri, detail=each.detail)
        else:
            yield Finding("group member", record=each.uri, detail=each.detail, remedy=CHECK_MEMBER)


def _remove(server: Server, library: Library, page: list[Foreign]) -> None:
    """Remove what strangers have left. Until everything is removed, no principal is known to be
    trusted: if this process dies, the next run looks at all records again."""
    server.plugin.rows.grants.save(library.uri, [], [])
    for each in page:
        if each.remove:
            each.remove()


def _allow(server: Server, permission: Any, allow: tuple[str, str, str], dry_run: bool) -> bool:
    """Grant a permission; return False if the principal already has it.

    :param allow: a URI, a permission, and a principal.
    """
    uri, name, principal = allow
    (allowed,) = server.run(lambda: permission.get_objects_permissions([uri]))
    if principal in allowed.get(name, ()):
        return False
    if not dry_run:
        server.run(lambda: permission.add_principal_to_ace(*allow))
    return True


def _check_records(server: Server, library: Library) -> None:
    """Refuse a collection that contains records without a file: they are not media."""
    others = [Filter("fileName", False, COMPARISON.HAS)]
    if server.list_all("record", library.uri, filters=others, limit=1):
        raise SettingError(
            "kinto.attachment.library.collection",
            f"{library.uri} has records that are not media; choose another collection",
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
