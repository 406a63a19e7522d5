"""Records that kinto-signer copies, with what they say about their files.

A copy has the same bytes as its source. They get a link for it too, so that they stay for as long
as either record has them.
"""

from typing import Any

from pyramid.request import Request

from ...errors import SourceReplaced
from ...files.blob import Attachment
from ...files.field import Files
from ...files.ref import FieldRef
from ...plugin import plugin_of
from ...rows.links import Link
from ...transactions.request import file_transaction
from ..fields import is_declared, policy_at
from ..records import find_key, is_same, value_of
from .guard import remember


def link_copies(request: Request, now: Files, before: Files) -> Files:
    """Link the files that were copied to a record. Return the others.

    :param now: what the record says.
    :param before: what it said before.
    :raises SourceReplaced: if the bytes of a file had owners, and have lost them all.
    """
    copied = {place: value for place, value in now.items() if before.get(place) != value}
    for place, value in before.items():
        if now.get(place) != value:
            remember(request, place, value)
    for place, value in copied.items():
        link = _find_link(request, place, value)
        keep_old = policy_at(request, place).keep_old_files
        if link:
            file_transaction(request).link(link, keep_old, lambda value=value: value)
        elif place in before:
            file_transaction(request).unlink(place, keep_old)
    return {place: value for place, value in now.items() if place not in copied}


def _find_link(request: Request, place: FieldRef, attachment: dict[str, Any]) -> Link | None:
    """Return the link of a copied file; None if this is another application's attribute, or no file
    of ours.

    :raises SourceReplaced: if the bytes had owners, and have lost them all.
    """
    plugin = plugin_of(request)
    links = plugin.rows.links
    key = find_key(plugin, attachment)
    if not key:
        return None  # not below today's base_url: not a key of ours
    others = [link for link in links.having(key) if link.ref != place]
    if place.is_nested:
        # Where it was copied from, the attribute may be no field: it may name anything then.
        alike = [link for link in others if getattr(link.ref, "field", "") == place.field]
        if not any(is_same(value_of(request, link.ref), attachment) for link in alike):
            if alike and is_declared(request, place):
                raise SourceReplaced(field=place.field)
            return None
    for link in others:
        # Writing the row locks it: a request that is about to replace the file waits for this copy.
        links.add(link)
    stale = [link for link in others if not link.is_of(value_of(request, link.ref))]
    links.remove_links(stale)
    if others and len(stale) == len(others):
        raise SourceReplaced(field=place.field)
    # Of a key without a known owner, only gc can tell whether it has one.
    shared = not others or any(link.shared for link in others)
    try:
        known = Attachment.from_json(attachment)
    except ValueError:
        return None  # another application's attribute
    return Link.of(place, key, known, shared)
