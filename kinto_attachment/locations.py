"""``location``: where the record says that its file is, and which key that is."""

from typing import Any

from pyramid.registry import Registry
from pyramid.request import Request

from .blob import RecordRef
from .errors import KeyRefused
from .keys import check_key
from .policy import Policy


def location_of(request: Request, ref: RecordRef, key: str, policy: Policy) -> str:
    """What to write on the record: the key joined to ``base_url``, or, for a private file, the URL
    of the record's attachment, as Kinto makes its URLs."""
    if not policy.private:
        return request.registry.attachment_storage.url(key)
    ids = {"bucket_id": ref.bucket, "collection_id": ref.collection, "id": ref.record}
    return request.route_url("attachment", **ids)


def key_in(registry: Registry, attachment: Any) -> str:
    """The key at the end of a location; empty if there is none: it is below another ``base_url``
    than today's, or the file is private, or the attribute is from before this plugin."""
    location = attachment.get("location") if isinstance(attachment, dict) else ""
    key = str(location or "").removeprefix(registry.attachment_settings["base_url"])
    if "://" in key or RecordRef.attached_at(key):
        return ""
    try:
        return check_key(key)
    except KeyRefused:
        return ""


def find_key(registry: Registry, attachment: dict[str, Any]) -> str:
    """The key of a file that another record may have; empty if nobody knows it."""
    ref = RecordRef.attached_at(str(attachment.get("location", "")))
    links = registry.attachment_links.of(ref) if ref else ()
    found = (link.key for link in links if link.is_of(attachment))
    return next(found, key_in(registry, attachment))
