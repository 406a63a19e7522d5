"""Links, on both of Kinto's storages."""

from uuid import uuid4

import pytest

from kinto_attachment.files.ref import FieldRef, RecordRef
from kinto_attachment.rows import paging
from kinto_attachment.rows.links import Link
from kinto_attachment.rows.paging import PAGE

DIGEST = "0" * 64


@pytest.fixture
def site(make_site, kinto):
    return make_site(kinto, "local")


@pytest.fixture
def run(site):
    return site.in_transaction


@pytest.fixture
def links(site):
    return site.links


def place(bucket, collection, record):
    return FieldRef(RecordRef(bucket, collection, record))


@pytest.fixture
def bucket():
    return f"b_{uuid4().hex}"


def test_links_of_a_record(links, run, bucket):
    ref = place(bucket, "c", "r")
    link = Link(ref, f"{bucket}/a.txt", DIGEST, shared=True)
    run(lambda: links.add(link))
    run(lambda: links.add(link))
    assert run(lambda: links.of(ref)) == [link]
    assert run(lambda: links.of(place(bucket, "c", "r2"))) == []
    assert run(lambda: links.remove(ref)) == [(link.key, True)]
    assert run(lambda: links.of(ref)) == []


@pytest.mark.parametrize(
    "ids, others",
    [
        (("a_", "c", "r"), ("ab", "c", "r")),
        (("{b}", "c_d", "r"), ("{b}", "cxd", "r")),
        (("{b}", "c", "r"), ("{b}", "c2", "r")),
        (("{b}", "c-", "r"), ("{b}", "c", "r")),
        (("{b}", "c.*", "r"), ("{b}", "cxx", "r")),
        (("{b}", "c%", "r"), ("{b}", "cxx", "r")),
    ],
)
def test_below_a_collection_are_only_its_own_links(links, run, bucket, ids, others):
    mine = place(*(part.format(b=bucket) for part in ids))
    other = place(*(part.format(b=bucket) for part in others))
    run(lambda: links.add(Link(mine, f"{bucket}/mine", DIGEST)))
    run(lambda: links.add(Link(other, f"{bucket}/other", DIGEST)))
    removed = run(lambda: links.remove_links(below(links, *mine.path[:2])))
    assert removed == [(f"{bucket}/mine", False)]
    assert run(lambda: links.remove(other)) == [(f"{bucket}/other", False)]


def below(links, *where):
    return [link for page in links.below(*where) for link in page]


def clean(run, links, bucket):
    run(lambda: links.remove_links(below(links, bucket)))


@pytest.mark.parametrize("where", [("c",), ()])
def test_below_reads_page_by_page(links, run, bucket, monkeypatch, where):
    monkeypatch.setattr(paging, "PAGE", 1)
    pair = [Link(place(bucket, "c", str(index)), f"{bucket}/{index}", DIGEST) for index in (0, 1)]
    for link in pair:
        run(lambda link=link: links.add(link))
    assert run(lambda: list(links.below(bucket, *where))) == [[pair[0]], [pair[1]]]
    clean(run, links, bucket)


def test_remove_links_takes_no_other_record_of_a_shared_key(links, run, bucket):
    pair = [Link(place(bucket, "c", str(index)), f"{bucket}/k", DIGEST, True) for index in (0, 1)]
    for link in pair:
        run(lambda link=link: links.add(link))
    assert run(lambda: links.find([(pair[0].ref, f"{bucket}/k")])) == [pair[0]]
    assert run(lambda: links.remove_links([pair[0]])) == [(f"{bucket}/k", True)]
    assert run(lambda: below(links, bucket)) == [pair[1]]
    clean(run, links, bucket)


def test_linked_keys(links, run, bucket):
    keys = [f"{bucket}/{index}" for index in range(PAGE + 3)]
    for index in (0, PAGE, PAGE + 2):
        ref = place(bucket, "c", str(index))
        link = Link(ref, keys[index], DIGEST, shared=index == 0)
        run(lambda link=link: links.add(link))
    assert run(lambda: links.linked(keys)) == {keys[0], keys[PAGE], keys[PAGE + 2]}
    assert run(lambda: links.linked([])) == set()
    clean(run, links, bucket)


def test_one_of_each_key(links, run, bucket):
    for index in range(7):
        shared = index >= 5
        key = f"{bucket}/shared" if shared else f"{bucket}/{index}"
        ref = place(bucket, "c", str(index))
        run(lambda ref=ref, key=key, shared=shared: links.add(Link(ref, key, DIGEST, shared)))
    found = run(lambda: list(links.one_of_each_key()))
    mine = [link.key for link in found if link.ref.path[0] == bucket]
    assert sorted(mine) == [*(f"{bucket}/{index}" for index in range(5)), f"{bucket}/shared"]
    clean(run, links, bucket)


def test_all_reads_page_by_page(links, run, bucket, monkeypatch):
    monkeypatch.setattr(paging, "PAGE", 3)
    for index in range(10):
        ref = place(bucket, "c", str(index))
        run(lambda ref=ref, index=index: links.add(Link(ref, f"{bucket}/{index}", DIGEST)))
    mine = run(lambda: [link.key for link in links.all() if link.ref.path[0] == bucket])
    assert mine == [f"{bucket}/{index}" for index in range(10)]
    clean(run, links, bucket)


def test_link_is_of():
    link = Link(place("a", "b", "c"), "x/y.png", "12")
    assert link.is_of({"location": "https://a.example/x/y.png"})
    assert not link.is_of({"location": "https://a.example/xx/y.png"[:-1]})
    assert not link.is_of(None)
