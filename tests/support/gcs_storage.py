"""Storages in Google Cloud Storage."""

from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage


def make_storage(settings, **more):
    """Return the storage of some settings.

    :param more: further settings, named without ``attachment.``.
    """
    more = {f"attachment.{key}": value for key, value in more.items()}
    return open_storage(
        read_settings({**settings, "attachment.base_url": "https://cdn.example/files/", **more})
    )
