"""A record of each site, and the resumable uploads of its attachment."""

import pytest

from tests.support.tus import Uploads


@pytest.fixture
def record(site):
    return site.collection().record()


@pytest.fixture
def staged(site):
    """A function that returns the keys of what has arrived of unfinished uploads of this test."""
    before = all_staged(site)
    return lambda: sorted(all_staged(site) - before)


def all_staged(site) -> set[str]:
    return {stat.key for stat in site.storage.list("private/_uploads/")}


@pytest.fixture
def uploads(record):
    return Uploads(record.http, f"{record.attachment_uri}/uploads")
