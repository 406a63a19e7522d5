"""Files of several fields: ``download``, and ``upload`` of its folder to the records again."""

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

import pytest
import requests

from kinto_attachment.errors import CommandFailed
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.records.index import INDEX
from kinto_attachment.transfer.records.upload import upload_records
from kinto_attachment.transfer.upload import record_id, upload
from tests.support.http_record import ALICE, HTTPRecord
from tests.support.servers.proxy import Proxy
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site
from tests.support.transfers import CONTENT, Told, client_of, files_in, kinds, make_client, one

FIELDS = "attachment cover pictures[] films[]"
POST, PATCH = "POST", "PATCH"


@pytest.fixture(scope="module", params=["memory", "postgresql"])
def server(request, kinto_settings, file_settings, tmp_path_factory):
    settings = {
        **kinto_settings(request.param, fresh=True),
        **file_settings("local"),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": FIELDS,
        "kinto.attachment.resources.hidden.private": "true",
        "kinto.attachment.resources.few.max_files": "2",
    }
    Site(**settings).close()  # this creates the tables
    with Gunicorn(settings, tmp_path_factory.mktemp("records")) as server:
        yield server


class Shelf(HTTPRecord):
    """A collection whose records have files in several fields."""

    def send(self, name, files, **data):
        """Send files, as (field, filename, bytes), to a record; return what is written."""
        form = [(field, (filename, content)) for field, filename, content in files]
        form.append(("data", (None, json.dumps(data))))
        url = f"{self.collection}/records/{name}/attachments"
        response = requests.post(url, files=form, auth=ALICE, timeout=60)
        assert response.ok, response.text
        return response.json()

    def read(self, name):
        url = f"{self.collection}/records/{name}"
        return requests.get(url, auth=ALICE, timeout=60).json()["data"]

    def patch(self, name, **data):
        url = f"{self.collection}/records/{name}"
        response = requests.patch(url, json={"data": data}, auth=ALICE, timeout=60)
        assert response.ok, response.text

    def files(self):
        """Return the names and hashes of the files of all records, by records and fields."""
        url = f"{self.collection}/records?_limit=999"
        found = {}
        for record in requests.get(url, auth=ALICE, timeout=60).json()["data"]:
            for field in ("attachment", "cover", "pictures", "films"):
                value = record.get(field)
                for each in [value] if isinstance(value, dict) else value or []:
                    place = record["id"], field
                    found.setdefault(place, []).append((each["filename"], each["hash"]))
        return found


@pytest.fixture
def shelf(server):
    return Shelf(server)


@pytest.fixture
def client(shelf):
    with client_of(shelf) as client:
        yield client


@contextmanager
def counting(shelf, misbehave=lambda handler, answer: False):
    """A client behind a proxy that knows its requests."""
    with Proxy(shelf.server.url, misbehave) as proxy, client_of(shelf, url=proxy.url) as client:
        proxy.sent = lambda *methods: [
            line for line, _ in proxy.requests if line.startswith(methods or (POST, PATCH))
        ]
        yield proxy, client


def pictures(count, name="{}.jpg"):
    return [("pictures", name.format(number), secrets.token_bytes(99)) for number in range(count)]


def fill(shelf):
    """Records with files in any number of fields."""
    shelf.send("r1", [("attachment", "a.bin", CONTENT), ("cover", "c.jpg", b"c"), *pictures(12)])
    shelf.send("r2", [("attachment", "a.bin", b"other"), ("films", "a.mov", b"")])
    shelf.send("r3", [("attachment", "b.bin", b"b")], path="deep/in/a/b.bin")
    shelf.send("r4", pictures(3, "same.jpg"), path="unused")
    shelf.send("r5", [("attachment", "x", b"5")], path="r4/pictures/001-x")
    shelf.send("r6", [("pictures", "same", b"same")] * 3)
    shelf.send("r61", [("attachment", INDEX, b"61")], path=f"{INDEX}/x")
    shelf.send("r7", [("attachment", "r6", b"7"), ("cover", "写真 été%22;.jpg", b"7")])
    shelf.send(record_id("own.bin"), [("attachment", "own.bin", b"8"), ("films", "f", b"9")])


class TestRoundTrip:
    def test_into_an_empty_collection(self, server, shelf, client, tmp_path):
        fill(shelf)
        first, second = tmp_path / "first", tmp_path / "second"
        progress = Told()
        count = sum(map(len, shelf.files().values()))
        assert kinds(download(client, first, progress=progress)) == {"downloaded": count}
        assert (progress.files, progress.expected) == (count, count)
        assert sum(progress.bytes) == progress.expected_bytes
        assert kinds(download(client, first)) == {"unchanged": count}
        copy = Shelf(server)
        with client_of(copy) as other:
            progress = Told()
            assert kinds(upload_records(other, first, progress=progress)) == {"uploaded": count}
            assert (progress.files, progress.expected) == (count, count)
            assert sum(progress.bytes) == progress.expected_bytes
            assert copy.files() == shelf.files()
            for name in ("r1", "r3", "r5"):
                assert copy.read(name).get("path") == shelf.read(name).get("path")
            assert kinds(download(other, second)) == {"downloaded": count}
        assert files_in(first) == files_in(second)

    def test_the_layout(self, shelf, client, tmp_path):
        fill(shelf)
        kinds(download(client, tmp_path))
        found = files_in(tmp_path)
        names = [f"r1/pictures/{number + 1:03}-{number}.jpg" for number in range(12)]
        assert sorted(path for path in found if path.startswith("r1/pictures")) == names
        hashes = [sha256(found[name]).hexdigest() for name in names]
        assert hashes == [each["hash"] for each in shelf.read("r1")["pictures"]]
        assert found["r1/cover/001-c.jpg"] == b"c"
        assert (found["a.bin"], found["a-r2.bin"]) == (CONTENT, b"other")
        assert found["deep/in/a/b.bin"] == b"b"
        assert not [path for path in found if path.startswith(record_id("own.bin") + "/attach")]

    def test_without_other_fields_nothing_is_new(self, shelf, client, tmp_path):
        shelf.send("r1", [("attachment", "a.bin", b"a")])
        shelf.send("r2", [("attachment", "b.bin", b"b")], path="c/d.bin")
        shelf.patch("r2", other={"filename": "x", "hash": "0" * 64, "location": "x"})
        assert kinds(download(client, tmp_path)) == {"downloaded": 2}
        assert files_in(tmp_path) == {"a.bin": b"a", "c/d.bin": b"b"}

    def test_private_files(self, server, tmp_path):
        shelf = Shelf(server)
        bucket = f"{server.url}/buckets/hidden"
        shelf.collection = shelf.record = f"{bucket}/collections/{secrets.token_hex(8)}"
        for uri in (bucket, shelf.collection):
            requests.put(uri, auth=ALICE, timeout=60).raise_for_status()
        shelf.send("r1", [("cover", "c", b"c"), *pictures(2)])
        assert shelf.read("r1")["cover"]["location"].endswith("/r1/attachments/cover")
        with client_of(shelf) as client:
            assert kinds(download(client, tmp_path)) == {"downloaded": 3}
            assert kinds(upload_records(client, tmp_path)) == {"unchanged": 3}


class TestUpload:
    def test_second_run_sends_nothing(self, shelf, client, tmp_path):
        fill(shelf)
        kinds(download(client, tmp_path))
        count = sum(map(len, shelf.files().values()))
        before = shelf.read("r1")
        with counting(shelf) as (proxy, other):
            progress = Told()
            assert kinds(upload_records(other, tmp_path, progress=progress)) == {"unchanged": count}
            assert (proxy.sent(), sum(progress.bytes)) == ([], 0)
        assert shelf.read("r1") == before

    def test_a_single_file_is_replaced_if_its_bytes_differ(self, shelf, client, tmp_path):
        written = shelf.send("r1", [("cover", "c.jpg", b"old")], title="mine")
        place = make(tmp_path, {"r1/cover/001-c.jpg": b"old"})["r1/cover/001-c.jpg"]
        assert one(upload_records(client, tmp_path)).kind == "unchanged"
        assert shelf.read("r1")["cover"] == written["cover"]
        place.write_bytes(b"new")
        finding = one(upload_records(client, tmp_path))
        assert (finding.kind, finding.key) == ("uploaded", "r1/cover/001-c.jpg")
        assert finding.record.endswith("/records/r1/attachments/cover")
        record = shelf.read("r1")
        assert record["cover"]["hash"] == sha256(b"new").hexdigest()
        assert (record["title"], "path" in record) == ("mine", False)

    def test_lists_get_the_order_of_the_folder(self, shelf, client, tmp_path):
        """What is there already is not sent, and what is not in the folder stays behind."""
        sent = [("pictures", name, name.encode()) for name in "abxc"]
        ids = {each["filename"]: each["id"] for each in shelf.send("r1", sent)["pictures"]}
        names = ("001-c", "002-new", "010-b", "9999-a", "unnumbered")
        make(tmp_path, {f"r1/pictures/{each}": each[-1:].encode() for each in names[:1]})
        make(tmp_path, {"r1/pictures/002-new": b"new", "r1/pictures/unnumbered": b"u"})
        make(tmp_path, {"r1/pictures/010-b": b"b", "r1/pictures/9999-a": b"a"})
        with counting(shelf) as (proxy, other):
            found = list(upload_records(other, tmp_path))
            assert len(proxy.sent(POST)) == 2 and len(proxy.sent(PATCH)) == 1
        assert {each.kind for each in found[:5]} == {"uploaded", "unchanged"}
        reordered, kept = found[5:]
        assert (reordered.kind, reordered.key) == ("reordered", "r1/pictures")
        assert (kept.kind, kept.key, kept.is_problem) == ("kept", "r1/pictures/x", False)
        assert kept.record.endswith(f"/attachments/pictures/{ids['x']}")
        value = shelf.read("r1")["pictures"]
        assert [each["filename"] for each in value] == ["c", "new", "b", "a", "unnumbered", "x"]
        assert {each["filename"]: each["id"] for each in value}.items() >= ids.items()
        found = [each.kind for each in upload_records(client, tmp_path)]
        assert found == ["unchanged"] * 5 + ["kept"]

    def test_two_lists_are_ordered_by_one_request(self, shelf, tmp_path):
        both = [("pictures", "a", b"a"), ("pictures", "b", b"b")]
        both += [("films", "a", b"a"), ("films", "b", b"b")]
        shelf.send("r1", both)
        for field in ("pictures", "films"):
            make(tmp_path, {f"r1/{field}/001-b": b"b", f"r1/{field}/002-a": b"a"})
        with counting(shelf) as (proxy, client):
            assert told(upload_records(client, tmp_path)) == ["unchanged"] * 4 + ["reordered"] * 2
            assert len(proxy.sent()) == 1
        for field in ("pictures", "films"):
            assert [each["filename"] for each in shelf.read("r1")[field]] == ["b", "a"]

    def test_dry_run(self, shelf, client, tmp_path):
        shelf.send("r1", [("cover", "c", b"c"), ("pictures", "a", b"a"), ("pictures", "x", b"x")])
        make(tmp_path, {"r1/cover/001-c": b"new", "r1/pictures/001-new": b"new"})
        make(tmp_path, {"r1/pictures/002-a": b"a", "r2/films/001-f": b"f", "loose": b"1"})
        make(tmp_path, {"r1/nothing/001-x": b"x", "r3/nothing/001-x": b"x"})
        before = shelf.files()
        planned = sorted(told(upload_records(client, tmp_path, dry_run=True)))
        assert shelf.files() == before
        assert planned == sorted(told(upload_records(client, tmp_path)))
        assert planned == sorted(
            ["uploaded"] * 4 + ["unchanged", "reordered", "kept"] + ["refused"] * 2
        )
        assert {*shelf.files()} >= {("r2", "films"), (record_id("loose"), "attachment")}

    def test_several_files_for_one(self, shelf, client, tmp_path):
        make(tmp_path, {"r1/cover/001-a": b"a", "r1/cover/002-b": b"b", "r2/cover/001-c": b"c"})
        found = list(upload_records(client, tmp_path))
        assert sorted(each.kind for each in found) == ["refused", "uploaded", "uploaded"]
        (refused,) = (each for each in found if each.is_problem)
        assert "the folder has several" in refused.detail
        assert told(upload_records(client, tmp_path)).count("refused") == 2

    def test_one_failure_does_not_stop_the_others(self, server, tmp_path):
        """The server accepts two files only in each list."""
        shelf = Shelf(server)
        bucket = f"{server.url}/buckets/few"
        shelf.collection = shelf.record = f"{bucket}/collections/{secrets.token_hex(8)}"
        for uri in (bucket, shelf.collection):
            requests.put(uri, auth=ALICE, timeout=60).raise_for_status()
        make(tmp_path, {f"r1/pictures/00{number}-a": b"%d" % number for number in range(3)})
        make(tmp_path, {"r1/films/001-a": b"1", "r2/cover/001-b": b"2"})
        with client_of(shelf) as client:
            assert kinds(upload_records(client, tmp_path)) == {"uploaded": 4, "refused": 1}

    def test_files_that_are_no_part_of_it(self, shelf, client, tmp_path):
        make(tmp_path, {"r1/cover/001-c.part": b"half", "r1/cover/001-c": b"whole"})
        (tmp_path / "r1" / "cover" / "002-link").symlink_to("/etc/passwd")
        assert kinds(upload_records(client, tmp_path)) == {"uploaded": 1, "skipped": 2}
        assert shelf.files() == {("r1", "cover"): [("c", sha256(b"whole").hexdigest())]}

    def test_a_folder_whose_name_is_not_text(self, client, tmp_path):
        folder = tmp_path / os.fsdecode(b"\xff")
        make(folder, {"r1/cover/001-c": b"c", "a": b"a"})
        assert kinds(upload_records(client, folder)) == {"uploaded": 2}

    @pytest.mark.parametrize(
        "line", ["x", "{}", '{"file": "a"}', '{"file": "a", "record": "../x"}', "[]", "\xff"]
    )
    def test_a_malformed_index(self, client, tmp_path, line):
        (tmp_path / INDEX).write_bytes(line.encode("latin-1"))
        with pytest.raises(CommandFailed, match="line 1"):
            list(upload_records(client, tmp_path))

    def test_no_folder(self, client, tmp_path):
        for path in make(tmp_path, {"file": b"1"})["file"], tmp_path / "gone":
            with pytest.raises(CommandFailed, match="is not a folder"):
                list(upload_records(client, path))


class TestRaces:
    @pytest.mark.parametrize("how", ["lost answer", "busy", "reset"])
    def test_is_tried_again(self, shelf, tmp_path, how):
        """A file that has arrived is not sent again, and no file has two entries."""
        files = {f"r1/pictures/{n:03}-p": CONTENT[n:] for n in range(1, 4)}
        make(tmp_path, {**files, "r1/cover/001-c": b"c"})
        left = [1, 1, 1]

        def misbehave(handler, answer):
            lost = how == "lost answer"
            if handler.command != POST or not left or lost != (answer is not None):
                return False
            left.pop()
            if how == "busy":
                handler.rfile.read(int(handler.headers["Content-Length"]))
                handler.answer(503, {}, b"{}")
            else:
                handler.reset()
            return True

        with counting(shelf, misbehave) as (proxy, client):
            assert kinds(upload_records(client, tmp_path)) == {"uploaded": 4}
            assert len(proxy.sent(POST)) == (4 if how == "lost answer" else 7)
        assert [each["size"] for each in shelf.read("r1")["pictures"]] == [
            len(content) for content in files.values()
        ]

    def test_another_client_appends(self, shelf, tmp_path):
        """Its entry stays, behind those of the folder."""
        shelf.send("r1", [("pictures", "b", b"b"), ("pictures", "a", b"a")])
        make(tmp_path, {f"r1/pictures/00{n}-{name}": name.encode() for n, name in enumerate("ab")})
        left = [1]

        def misbehave(handler, answer):
            if handler.command == PATCH and left:
                left.pop()
                shelf.send("r1", [("pictures", "theirs", b"theirs")])

        with counting(shelf, misbehave) as (proxy, client):
            found = told(upload_records(client, tmp_path))
            assert found == ["unchanged", "unchanged", "reordered", "kept"]
            assert len(proxy.sent(PATCH)) == 2
        names = [each["filename"] for each in shelf.read("r1")["pictures"]]
        assert names == ["a", "b", "theirs"]

    def test_runs_at_once(self, shelf, tmp_path):
        """No file gets two entries, and no run fails."""
        # Kinto answers 500 if several requests are the first to read a collection.
        requests.get(f"{shelf.collection}/records", auth=ALICE, timeout=60).raise_for_status()
        for name in ("r1", "r2"):
            make(tmp_path, {f"{name}/pictures/{n:03}-{n % 3}": b"%d" % n for n in range(12)})
            make(tmp_path, {f"{name}/{each}/001-c": b"c" for each in ("attachment", "cover")})

        def run(_):
            with make_client(shelf) as client:
                return kinds(upload_records(client, tmp_path))

        with ThreadPoolExecutor(3) as pool:
            for found in pool.map(run, range(3)):
                assert sum(found.values()) - found.get("reordered", 0) == 28
                assert found.keys() <= {"uploaded", "unchanged", "reordered"}
        content = [sha256(b"%d" % number).hexdigest() for number in range(12)]
        for name in ("r1", "r2"):
            assert [each["hash"] for each in shelf.read(name)["pictures"]] == content

    def test_another_client_replaces(self, shelf, tmp_path):
        shelf.send("r1", [("cover", "c", b"old")])
        make(tmp_path, {"r1/cover/001-c": b"mine"})

        def misbehave(handler, answer):
            if handler.command == POST and answer is None:
                shelf.send("r1", [("cover", "c", b"theirs")])

        with counting(shelf, misbehave) as (_, client):
            assert one(upload_records(client, tmp_path)).kind == "conflict"
        assert shelf.read("r1")["cover"]["hash"] == sha256(b"theirs").hexdigest()


class TestDownload:
    def test_what_is_there_is_not_received_again(self, shelf, client, tmp_path):
        shelf.send("r1", [("pictures", f"{n}", CONTENT[n:]) for n in range(3)])
        make(tmp_path, {"r1/pictures/001-0": CONTENT})
        make(tmp_path, {"r1/pictures/002-1.part": CONTENT[1:1001]})
        make(tmp_path, {"r1/pictures/003-2": b"mine"})
        progress = Told()
        assert kinds(download(client, tmp_path, progress=progress)) == {
            "unchanged": 1,
            "downloaded": 1,
            "conflict": 1,
        }
        assert sum(progress.bytes) == len(CONTENT) - 1 - 1000
        assert kinds(download(client, tmp_path, overwrite=True)) == {
            "unchanged": 2,
            "downloaded": 1,
        }

    def test_a_new_order_is_not_downloaded(self, shelf, client, tmp_path):
        """Files of another position are renamed."""
        files = [("pictures", name, CONTENT[n:]) for n, name in enumerate("abcd")]
        written = shelf.send("r1", files)["pictures"]
        assert kinds(download(client, tmp_path)) == {"downloaded": 4}
        before = files_in(tmp_path)
        shelf.patch("r1", pictures=[written[n] for n in (3, 0, 1, 2)])
        kinds(download(client, tmp_path, dry_run=True))
        assert files_in(tmp_path) == before
        progress = Told()
        assert kinds(download(client, tmp_path, progress=progress)) == {"unchanged": 4}
        assert sum(progress.bytes) == 0
        names = sorted(os.listdir(tmp_path / "r1" / "pictures"))
        assert names == ["001-d", "002-a", "003-b", "004-c"]
        assert told(upload_records(client, tmp_path)) == ["unchanged"] * 4

    def test_equal_names_are_not_replaced(self, shelf, client, tmp_path):
        files = [("pictures", "same", name.encode()) for name in "ab"]
        written = shelf.send("r1", files)["pictures"]
        kinds(download(client, tmp_path))
        shelf.patch("r1", pictures=written[::-1])
        assert kinds(download(client, tmp_path)) == {"conflict": 2}
        assert kinds(download(client, tmp_path, overwrite=True)) == {"downloaded": 2}
        found = files_in(tmp_path / "r1" / "pictures")
        assert found == {"001-same": b"b", "002-same": b"a"}

    def test_outdated_files_are_reported(self, shelf, client, tmp_path):
        """Otherwise ``upload`` would add them to the list again."""
        written = shelf.send("r1", [("pictures", name, name.encode()) for name in "ab"])
        kinds(download(client, tmp_path))
        os.close(os.open(os.fsencode(tmp_path) + b"/r1/pictures/003-\xff", os.O_CREAT))
        make(tmp_path, {"r1/pictures/notes.txt": b"mine", "r2/pictures/001-a": b"a"})
        shelf.patch("r1", pictures=written["pictures"][1:])
        found = {each.key: each.kind for each in download(client, tmp_path)}
        assert found == {
            "r1/pictures/001-b": "unchanged",
            "r1/pictures/001-a": "conflict",
            "r1/pictures/003-\\udcff": "conflict",
        }

    def test_dry_run(self, shelf, client, tmp_path):
        fill(shelf)
        count = sum(map(len, shelf.files().values()))
        assert kinds(download(client, tmp_path / "to", dry_run=True)) == {"downloaded": count}
        assert os.listdir(tmp_path) == []

    def test_an_outdated_index_is_replaced(self, shelf, client, tmp_path):
        shelf.send("r1", [("attachment", "a", b"a"), ("cover", "c", b"c")])
        kinds(download(client, tmp_path))
        assert b'"r1"' in (tmp_path / INDEX).read_bytes()
        shelf.patch("r1", attachment=None, cover=None)
        shelf.send("r2", [("attachment", "a", b"a")])
        kinds(download(client, tmp_path))
        assert b'"r1"' not in (tmp_path / INDEX).read_bytes()
        assert b'"r2"' in (tmp_path / INDEX).read_bytes()

    HOSTILE = ("../evil", "/tmp/evil", "a/../../evil", "a\\b", "..", "", "a/b", "x\0y", "x" * 300)

    @pytest.mark.parametrize("name", HOSTILE)
    def test_nothing_leaves_the_folder(self, shelf, tmp_path, name):
        """Filenames, fields and ids of a hostile server."""
        written = shelf.send("r1", [("cover", "good", b"c"), *pictures(1)])
        file = {**written["cover"], "filename": name}
        entry = {**written["pictures"][0], "filename": name}
        record = {"id": "r1", "cover": file, "pictures": [entry, {**entry, "id": name}]}
        records = [{**record, name: file, "attachments": file}, {**record, "id": name}]

        def misbehave(handler, answer):
            if answer is not None and handler.path.partition("?")[0].endswith("/records"):
                handler.answer(200, {}, json.dumps({"data": records}).encode())
                return True
            if answer is not None and handler.path.endswith("/attachments"):
                names = dict.fromkeys((name, "attachments", "cover", "pictures"), file)
                handler.answer(200, {}, json.dumps(names).encode())
                return True

        to = tmp_path / "x" / "to"
        with counting(shelf, misbehave) as (_, client):
            assert kinds(download(client, to)) == {"downloaded": 2, "refused": 2}
        places = {
            path: content for path, content in files_in(tmp_path).items() if INDEX not in path
        }
        assert len(places) == 2
        for path in places:
            assert path.startswith(("x/to/r1/cover/001-", "x/to/r1/pictures/001-"))

    def test_symbolic_links_are_not_followed(self, shelf, client, tmp_path):
        shelf.send("r1", [("cover", "c", b"c"), *pictures(1)])
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "001-other").write_bytes(b"other")
        (tmp_path / "to" / "r1").mkdir(parents=True)
        for field in ("cover", "pictures"):
            (tmp_path / "to" / "r1" / field).symlink_to(tmp_path / "outside")
        assert kinds(download(client, tmp_path / "to")) == {"conflict": 2}
        assert os.listdir(tmp_path / "outside") == ["001-other"]

    def test_attributes_that_only_look_like_files(self, shelf, client, tmp_path):
        """An application has copied what the plugin wrote."""
        file = shelf.send("r1", [("cover", "c", b"c")])["cover"]
        shelf.send("r2", [("attachment", "a", b"a")], copied=file, copies=[file])
        assert kinds(download(client, tmp_path)) == {"downloaded": 2}


def test_the_files_of_upload_get_fields(server, shelf, client, tmp_path):
    """A folder that ``upload`` has sent, whose records then got further files."""
    make(tmp_path / "from", {"a/b.bin": b"b", "c.bin": b"c"})
    kinds(upload(client, [tmp_path / "from"]))
    shelf.send(record_id("a/b.bin"), pictures(2))
    assert kinds(download(client, tmp_path / "to")) == {"downloaded": 4}
    assert not (tmp_path / "to" / INDEX).exists()
    copy = Shelf(server)
    with client_of(copy) as other:
        assert kinds(upload_records(other, tmp_path / "to")) == {"uploaded": 4}
    assert copy.files() == shelf.files()


def make(folder, files):
    """Make files by their paths below the folder; return their places."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return {path: folder / path for path in files}


def told(findings):
    return [finding.kind for finding in findings]
