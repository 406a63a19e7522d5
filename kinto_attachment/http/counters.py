"""``GET /__counters__``: how many attachments there are.

Kinto's plugin counts the rows of the existing plugin, by their resource name. Those of this plugin
have another name, and are added here.
"""

from functools import wraps
from typing import Any

from ..rows.links import LINK_ROWS, LINKS_PARENT


def count_links(storage: Any) -> None:
    """Have a storage of Kinto count links as attachments, in a count of the whole server.

    :param storage: ``registry.storage``.
    """
    count_all = storage.count_all

    @wraps(count_all)
    def counted(resource_name: str, parent_id: str, *args: Any, **options: Any) -> int:
        found: int = count_all(resource_name, parent_id, *args, **options)
        if (resource_name, parent_id) == ("attachments", "*"):
            found += count_all(LINK_ROWS, f"{LINKS_PARENT}/*", *args, **options)
        return found

    storage.count_all = counted
