"""Turns of uploads that store the same key, on both of Kinto's storages."""

from datetime import timedelta
from uuid import uuid4

import pytest
from kinto.core.storage.exceptions import IntegrityError

from kinto_attachment.maintenance.gc import collect
from kinto_attachment.rows.deletion import RESERVATION_ROWS, RESERVATIONS_PARENT
from kinto_attachment.rows.turns import TURN_ROWS, TURN_SECONDS, TURNS_PARENT


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


@pytest.mark.parametrize("naming", [{"randomize": "false"}, {"filename_pattern": "{hash}"}])
def test_two_that_are_taken_in_one_millisecond(make_server, monkeypatch, naming):
    """Kinto's timestamps are unique for each parent, so one of the rows cannot be written."""
    settings = {f"kinto.attachment.{name}": value for name, value in naming.items()}
    site = make_server("moto", **settings)
    take, conflicts = site.rows.turns.take, iter([IntegrityError()] * 3)

    def conflicting(*arguments):
        taken = take(*arguments)
        error = next(conflicts, None)
        if error:
            raise error
        return taken

    monkeypatch.setattr(site.rows.turns, "take", conflicting)
    record = site.collection().record()
    location = record.upload(b"content", "a.txt").json["location"]
    assert next(conflicts, None) is None
    assert site.read(location) == b"content"
    if naming == {"randomize": "false"}:
        assert location.endswith("/a.txt")
    for rows, parent in ((TURN_ROWS, TURNS_PARENT), (RESERVATION_ROWS, RESERVATIONS_PARENT)):
        where = rows, f"{parent}/*"
        assert site.in_transaction(lambda where=where: site.registry.storage.list_all(*where)) == []
