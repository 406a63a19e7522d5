"""A plugin for Kinto that copies records as kinto-signer does, with the same events: what is in the
bucket ``workspace`` is reviewed in ``preview`` and published in ``published``.

``kinto.includes = kinto_attachment tests.support.signer``; then write ``status`` to a collection.
"""

from kinto.core.events import ACTIONS, ResourceChanged
from kinto.core.utils import build_request


def includeme(config) -> None:
    config.add_subscriber(
        on_status, ResourceChanged, for_actions=(ACTIONS.UPDATE,), for_resources=("collection",)
    )


def on_status(event) -> None:
    request, bucket = event.request, event.payload["bucket_id"]
    if bucket != "workspace":
        return
    for impacted in event.impacted_objects:
        name = impacted["new"]["id"]
        source, preview, published = (
            f"/buckets/{each}/collections/{name}" for each in ("workspace", "preview", "published")
        )
        request._attachment_auto_save = True
        match impacted["new"].get("status"):
            case "to-review":
                copy(request, source, preview, named=preview)
            case "to-sign":
                copy(request, source, preview, named=preview)
                copy(request, source, published, named=published)
            case "to-rollback":
                copy(request, published, source, named=published)
                copy(request, published, preview, named=published)


def copy(request, source: str, target: str, named: str) -> None:
    """Make the records of a collection those of another one.

    :param named: the collection that the events name.
    """
    storage = request.registry.storage
    before = {each["id"]: each for each in storage.list_all("record", target)}
    wanted = {each["id"]: each for each in storage.list_all("record", source)}
    for record_id in before.keys() | wanted.keys():
        old, new = before.get(record_id), wanted.get(record_id)
        if _without_date(old) == _without_date(new):
            continue
        if new is None:
            written, action = storage.delete("record", target, record_id), ACTIONS.DELETE
        elif old is None:
            written, action = storage.create("record", target, _without_date(new)), ACTIONS.CREATE
        else:
            written = storage.update("record", target, record_id, _without_date(new))
            action = ACTIONS.UPDATE
        notify(request, target, f"{named}/records/{record_id}", written, action, old)


def notify(request, parent: str, uri: str, written, action, old) -> None:
    method = "DELETE" if action is ACTIONS.DELETE else "PUT"
    fake = build_request(request, {"method": method, "path": uri})
    _, _, bucket, _, collection, _, record_id = uri.split("/")
    fake.matchdict = {"bucket_id": bucket, "collection_id": collection, "id": record_id}
    fake.bound_data, fake.current_resource_name = request.bound_data, "record"
    fake.authn_type, fake.selected_userid = "plugin", "kinto-signer"
    if action is ACTIONS.UPDATE and "attachment" in old:
        fake._attachment_auto_save = old["attachment"] != written.get("attachment")
    fake.notify_resource_event(
        parent_id=parent, timestamp=written["last_modified"], data=written, action=action, old=old
    )


def _without_date(record):
    return record and {name: value for name, value in record.items() if name != "last_modified"}
