"""Rows in which another program has put a value of another type.

They count as unreadable, so that no request and no command gets such a value.
"""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest

from kinto_attachment.library.schema import FACTS, REQUIRED
from kinto_attachment.rows.deletion import (
    CONDEMNED_PARENT,
    CONDEMNED_ROWS,
    RELEASE_ROWS,
    RELEASES_PARENT,
)
from kinto_attachment.rows.grants import GRANT_ROWS, GRANTS_PARENT
from kinto_attachment.rows.links import LINK_ROWS, LINKS_PARENT, parent_of
from kinto_attachment.rows.uploads.pending import PENDING_PARENT, PENDING_ROWS
from kinto_attachment.rows.uploads.resumable import (
    SEGMENT_ROWS,
    SEGMENTS_PARENT,
    UPLOAD_ROWS,
    UPLOADS_PARENT,
)
from kinto_attachment.rows.uploads.unclaimed import UNCLAIMED_PARENT, UNCLAIMED_ROWS
from kinto_attachment.rows.variants import VARIANT_ROWS, VARIANTS_PARENT
from tests.support.library import MediaLibrary, settings
from tests.support.site import ALICE, BOB
from tests.support.tus import Uploads

# One value of each type of JSON, and numbers that no size can be.
TEXT = "x/../\r\ny\u2603"
VALUES = [None, True, 7, -1, 1.5, TEXT, [], [7], [["x"]], {}, {"x": 1}]

# Those of them that are of the right type.
ALLOWED = {
    (LINK_ROWS, "filename"): [TEXT],
    (LINK_ROWS, "mimetype"): [TEXT],
    (LINK_ROWS, "size"): [None, 7],  # that of an older row is unknown
    (RELEASE_ROWS, "keys"): [[]],
    (CONDEMNED_ROWS, "keys"): [[], [7], [["x"]]],  # they are compared with keys, and nothing else
    (PENDING_ROWS, "owner"): [TEXT],
    (PENDING_ROWS, "mimetype"): [TEXT],
    (PENDING_ROWS, "size"): [7],
    (UNCLAIMED_ROWS, "owner"): [TEXT],
    (UNCLAIMED_ROWS, "facts"): [{}, {"x": 1}],
    (UNCLAIMED_ROWS, "defaults"): [{}, {"x": 1}],
    (UPLOAD_ROWS, "length"): [None, 7],
    (UPLOAD_ROWS, "metadata"): [None],
    (UPLOAD_ROWS, "result"): [None],
    (SEGMENT_ROWS, "size"): [7],
    (SEGMENT_ROWS, "state"): [TEXT],
    (VARIANT_ROWS, "name"): [TEXT],
    (VARIANT_ROWS, "size"): [7],
    (VARIANT_ROWS, "mimetype"): [TEXT],
    (VARIANT_ROWS, "width"): [7],
    (VARIANT_ROWS, "height"): [7],
    (VARIANT_ROWS, "direct"): [True],
    (GRANT_ROWS, "editors"): [[]],
    (GRANT_ROWS, "authors"): [[]],
}
PARENTS = {
    LINK_ROWS: LINKS_PARENT,
    RELEASE_ROWS: RELEASES_PARENT,
    PENDING_ROWS: PENDING_PARENT,
    UNCLAIMED_ROWS: UNCLAIMED_PARENT,
    UPLOAD_ROWS: UPLOADS_PARENT,
    SEGMENT_ROWS: SEGMENTS_PARENT,
    VARIANT_ROWS: VARIANTS_PARENT,
    GRANT_ROWS: GRANTS_PARENT,
}


def is_same(one, other) -> bool:
    return (type(one), one) == (type(other), other)


class Rows:
    """The rows of a site on which each kind of row was written by a request of its own."""

    def __init__(self, site):
        self.site, self.http, self.storage = site, site.http, site.registry.storage
        library = MediaLibrary(site)
        self.content = uuid4().bytes
        self.digest = sha256(self.content).hexdigest()
        self.http.post("/media", self.content, headers=ALICE, status=201)
        self.claimed = sha256(self.content[1:]).hexdigest()
        url = f"/media/{self.claimed}?verify=false"
        self.http.post(url, self.content[1:], headers=ALICE, status=202)
        self.object = library.add()
        self.http.get(f"/image/30x0/{self.object['id']}.jpg")
        self.upload = library.upload()
        self.record = site.collection().record()
        self.record.upload(self.content)
        self.uploads = Uploads(self.http, f"{self.record.attachment_uri}/uploads")
        self.begun = self.uploads.create(100, b"hel").headers["Location"]
        self.sent = self.uploads.create(5, b"hello").headers["Location"]
        site.in_transaction(lambda: site.releases.add([f"a/{uuid4()}.txt"], "keep"))
        site.in_transaction(lambda: site.rows.reservations.condemn([f"a/{uuid4()}.txt"]))

    def found(self, name: str) -> list[tuple[str, dict]]:
        """Return the parent and the content of each row."""
        if name == CONDEMNED_ROWS:
            parents = [CONDEMNED_PARENT]
        else:
            within = self.storage._store.items()
            parents = [parent for parent, kinds in within if kinds.get(name)]
        list_all = partial(self.storage.list_all, name)
        return [(parent, row) for parent in parents for row in list_all(parent)]

    def changed(self, name: str) -> Iterator[tuple[str, Any, bool]]:
        """Give each value of each row each type, one after the other. Yield the name of the value,
        what it is now, and whether it is still of the right type."""
        for parent, row in self.found(name):
            try:
                for key in row.keys() - {"id", "last_modified"}:
                    allowed = ALLOWED.get((name, key), [])
                    for value in VALUES:
                        self.write(name, parent, {**row, key: value})
                        yield key, value, any(is_same(value, each) for each in allowed)
            finally:
                self.write(name, parent, row)

    def write(self, name: str, parent: str, row: dict) -> None:
        values = {key: value for key, value in row.items() if key != "last_modified"}
        self.site.in_transaction(lambda: self.storage.update(name, parent, row["id"], values))

    def unreadable(self) -> int:
        return len(self.site.in_transaction(lambda: list(self.site.rows.unreadable())))

    def ask(self) -> set[int]:
        """Send the requests that read rows; return the statuses of the answers."""
        get = partial(self.http.get, headers=ALICE, status="*")
        answers = [
            get(f"/media/{self.digest}"),
            get(f"/media/{self.claimed}"),
            self.http.post_json("/media/stat", [self.digest, self.claimed], headers=ALICE),
            get(self.record.attachment_uri),
            get(f"/original/{self.object['id']}.jpg"),
            get(f"/image/30x0/{self.object['id']}.jpg"),
            get(f"/image/20x0/{self.object['id']}.jpg"),
            get(f"/original/{self.upload['id']}.jpg"),
            get(f"/image/20x0/{self.upload['id']}.jpg"),
            *(self.uploads.head(url, "*") for url in (self.begun, self.sent)),
            self.uploads.get(self.uploads.base),
            self.uploads.patch(self.begun, 0, b"x", status="*"),
            self.http.post("/media", self.content, headers=ALICE, status="*"),
            self.record.upload(self.content, status="*"),
        ]
        return {each.status_int for each in answers}


@pytest.fixture(scope="module")
def rows(make_site):
    place = uuid4().hex
    return Rows(make_site("memory", "memory", **settings("site", **{"kinto.project_name": place})))


@pytest.mark.parametrize("name", [*PARENTS, CONDEMNED_ROWS])
def test_are_unreadable(rows, name):
    assert rows.found(name) and rows.unreadable() == 0
    for key, value, is_right in rows.changed(name):
        assert rows.unreadable() == (not is_right), (key, value)


def test_keys_of_unreadable_links_have_an_owner(rows):
    """``gc`` asks for them, and for the hash that is in the names of resized images."""
    keys = {row["id"].partition(":")[2] for _, row in rows.found(LINK_ROWS)}
    links = rows.site.links
    for _, value, is_right in rows.changed(LINK_ROWS):
        found = rows.site.in_transaction(lambda: links.digests(keys))
        assert found.keys() == keys, value
        assert ("" in found.values()) == (not is_right)


@pytest.mark.parametrize("name", [*PARENTS, CONDEMNED_ROWS])
def test_no_request_fails(rows, name):
    ignored = set()  # rows that cannot be read all do the same
    for key, value, is_right in rows.changed(name):
        if key == "size" and value == 7:
            continue  # the file is damaged then
        if is_right or key not in ignored:
            ignored |= set() if is_right else {key}
            assert rows.ask() <= {200, 201, 204, 404, 409}, (key, value)
    assert rows.ask() <= {200, 404, 409} and rows.unreadable() == 0


WRONG = [True, [{"name": "x"}], {"x": 1}]
"""Values that neither text nor a number is."""


def test_facts(rows):
    """What the row of an upload says of its file."""
    [(parent, row)] = rows.found(UNCLAIMED_ROWS)
    facts, required = row["facts"], {name: row["facts"][name] for name in ("id", *REQUIRED)}
    try:
        for name in FACTS:
            for value in WRONG:
                rows.write(UNCLAIMED_ROWS, parent, {**row, "facts": {**facts, name: value}})
                assert rows.ask() <= {200, 404, 409}, (name, value)
                rows.http.post_json(
                    "/content/_media", {"data": required}, headers=ALICE, status=400
                )
    finally:
        rows.write(UNCLAIMED_ROWS, parent, row)


def test_objects(rows):
    """What another program has written into an object of the library."""
    uri = rows.site.registry.attachment_library.uri
    [row] = rows.storage.list_all("record", uri)
    try:
        for name in row.keys() - {"id", "last_modified"} | {"variants"}:
            for value in WRONG:
                rows.write("record", uri, {**row, name: value})
                assert rows.ask() <= {200, 404, 409}, (name, value)
                url = f"/image/20x0/{row['id']}/a.jpg/variant/x"
                rows.http.get(url, headers=ALICE, status=404)
    finally:
        rows.write("record", uri, row)


def test_another_owner_has_the_media_too(make_site):
    """A user who may read all media gets them, although the oldest row cannot be read."""
    site = make_site(**{"kinto.media_read_principals": "system.Everyone"})
    content = uuid4().bytes
    for owner in (ALICE, BOB):
        digest = site.http.post("/media", content, headers=owner, status=201).text
    pair = [each for each in site.links.all() if each.digest == digest]
    oldest = min(pair, key=lambda link: link.modified)
    parent = parent_of(oldest.ref)
    [row] = site.registry.storage.list_all(LINK_ROWS, parent)
    site.registry.storage.update(LINK_ROWS, parent, row["id"], {**row, "size": "x"})
    assert site.http.get(f"/media/{digest}").body == content
