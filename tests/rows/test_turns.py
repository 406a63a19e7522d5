"""Turns of uploads that store the same key, on both of Kinto's storages."""

from datetime import timedelta
from uuid import uuid4

import pytest

from kinto_attachment.maintenance.gc import collect
from kinto_attachment.rows.turns import TURN_SECONDS


@pytest.fixture
def take(make_site, kinto):
    """Take the turn of a new key, some seconds after now."""
    site, key = make_site(kinto, "local"), f"blog/{uuid4().hex}_%"
    now = site.in_transaction(lambda: site.rows.reservations.reserve(key)).modified

    def take(holder, seconds=0):
        at = now + seconds * 1000
        return site.in_transaction(lambda: site.rows.turns.take(key, holder, at))

    take.end = lambda holder: site.in_transaction(lambda: site.rows.turns.end([key], holder))
    return take


def test_one_goes_first(take):
    assert take("one")
    assert not take("two")
    take.end("two")
    assert not take("two")
    take.end("one")
    assert take("two")


def test_a_turn_ends_by_itself(take):
    assert take("one")
    assert not take("two", TURN_SECONDS - 5)
    assert take("two", TURN_SECONDS + 5)
    take.end("one")
    assert not take("three")


def test_gc_forgets_them(make_server):
    site = make_server("local")
    assert site.in_transaction(lambda: site.rows.turns.take("a", "dead", 0))
    assert list(collect(site.server, timedelta(hours=24))) == []
    assert not site.in_transaction(lambda: site.rows.turns.take("a", "other", 0))
    list(collect(site.server, offline=True))
    assert site.in_transaction(lambda: site.rows.turns.take("a", "other", 0))
