"""Storages in a bucket of Google Cloud Storage."""

from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage


def make_storage(settings, **more):
    more = {f"attachment.{key}": value for key, value in more.items()}
    return open_storage(
        read_settings({**settings, "attachment.base_url": "https://cdn.example/files/", **more})
    )
