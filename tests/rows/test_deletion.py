"""Releases, on both of Kinto's storages."""

from uuid import uuid4

import pytest

from kinto_attachment.rows.deletion import Rule
from kinto_attachment.rows.paging import PAGE


@pytest.fixture
def site(make_site, kinto):
    return make_site(kinto, "local")


def test_releases(site):
    run, releases = site.in_transaction, site.releases
    keys = [f"{uuid4().hex}/{index}" for index in range(PAGE + 1)]
    ids = run(lambda: releases.add(keys, Rule.DELETE))
    assert len(ids) == 2
    first = run(lambda: releases.get(ids[0]))
    assert first.rule is Rule.DELETE
    assert list(first.keys) == keys[:PAGE]
    known = run(lambda: {release.id for release in releases.all()})
    assert set(ids) <= known
    for release_id in [*ids, "never"]:
        run(lambda release_id=release_id: releases.drop(release_id))
    assert run(lambda: releases.get(ids[0])) is None
    assert run(lambda: releases.add([], Rule.KEEP)) == []
