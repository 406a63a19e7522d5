"""``upload`` and its dry run where files, names or permissions are unusual."""

import json
import os
import secrets
import unicodedata

import pytest
import requests

from kinto_attachment.transfer import library
from kinto_attachment.transfer.upload import record_id
from tests.support.command import shell
from tests.support.http_record import ALICE, BOB, HTTPRecord
from tests.support.servers.proxy import Proxy
from tests.support.servers.wsgi import Gunicorn


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {**file_settings("local"), "kinto.attachment.library.bucket": "site"}
    with Gunicorn(settings, tmp_path_factory.mktemp("uploads")) as server:
        for uri in ("buckets/site", "buckets/site/collections/media"):
            requests.put(f"{server.url}/{uri}", auth=ALICE, timeout=60).raise_for_status()
        yield server


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make files by their paths in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(files: dict[str, str]) -> None:
        for path, content in files.items():
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)

    return make


class TestDryRun:
    """It says of each file what the upload then does."""

    @pytest.fixture
    def collection(self, server):
        return HTTPRecord(server)

    @pytest.fixture
    def kinds(self, collection):
        def kinds(*arguments, auth="alice:secret") -> dict[str, str]:
            *_, bucket, _, name = collection.collection.split("/")
            where = ["--server", collection.server.url, "--bucket", bucket, "--collection", name]
            said = []
            for dry_run in (["--dry-run"], []):
                options = ["--auth", auth, "--parallel", "1", "--json", *dry_run]
                _, lines, _ = shell("upload", *arguments, *where, *options)
                found = map(json.loads, lines)
                said.append({each["key"]: each["kind"].removeprefix("would ") for each in found})
            would, does = said
            words = {"upload": "uploaded", "be refused": "refused"}
            assert {key: words[kind] for key, kind in would.items()} == does
            return does

        return kinds

    def test_a_name_that_is_refused(self, kinds, make):
        """It says nothing about the other files with its extension."""
        make({"b\tb.zip": "b", "a.zip": "a", "c.zip": "c", ".profile": "p"})
        expected = {"b\tb.zip": "refused", "a.zip": "uploaded", "c.zip": "uploaded"}
        assert kinds("b\tb.zip", "a.zip", "c.zip") == expected
        assert kinds(".profile") == {".profile": "refused"}

    def test_a_record_of_somebody_else(self, kinds, make, collection):
        """The user may create records, but not replace the file of this one."""
        user = requests.get(f"{collection.server.url}/", auth=BOB, timeout=60).json()["user"]["id"]
        for permission in ("record:create", "read"):
            collection.share(user, uri=collection.collection, permission=permission)
        collection.url = f"{collection.collection}/records/{record_id('b.txt')}/attachment"
        collection.upload(b"hers", "b.txt")
        make({"a.txt": "a", "b.txt": "b", "c.txt": "c"})
        expected = {"a.txt": "uploaded", "b.txt": "refused", "c.txt": "uploaded"}
        assert kinds("a.txt", "b.txt", "c.txt", auth="bob:secret") == expected


class TestLibrary:
    @pytest.fixture
    def objects(self, server):
        """Return the objects of the library."""

        def objects() -> list[dict]:
            response = requests.get(f"{server.url}/content/_media", auth=ALICE, timeout=60)
            return response.json()["data"]

        yield objects
        records = f"{server.url}/buckets/site/collections/media/records"
        requests.delete(records, auth=ALICE, timeout=60).raise_for_status()

    @pytest.fixture
    def run(self, server):
        """Run the command; return its exit status, the kinds of its findings by their keys, and
        its messages."""

        def run(*arguments, url=server.url):
            where = ["--server", url, "--auth", "alice:secret", "--json"]
            status, lines, said = shell("upload", "--library", *arguments, *where)
            found: dict[str, list[str]] = {}
            for line in map(json.loads, lines):
                found.setdefault(line["key"], []).append(line["kind"])
            return status, {key: sorted(kinds) for key, kinds in found.items()}, said

        return run

    @pytest.mark.parametrize("parallel", ["1", "4"])
    def test_equal_files_in_two_folders(self, run, make, objects, parallel):
        """Each becomes an object with its own description, whatever the timing."""
        folders = "abcd"
        rows = [f"{folder}/cover.txt,Cover of {folder}" for folder in folders]
        make({f"m/{folder}/cover.txt": "same" for folder in folders})
        make({"meta.csv": "\n".join(["file,title", *rows])})
        command = ["m", "--metadata", "meta.csv", "--parallel", parallel]
        names = [f"{folder}/cover.txt" for folder in folders]
        assert run(*command)[:2] == (0, dict.fromkeys(names, ["uploaded"]))
        assert sorted(each["title"] for each in objects()) == [f"Cover of {c}" for c in folders]
        assert run(*command)[:2] == (0, dict.fromkeys(names, ["unchanged"]))
        assert len(objects()) == 4

    def test_the_rest_of_equal_files(self, run, make, objects):
        """A file does not take the object of another one, even if its own is not there yet."""
        make({f"m/{folder}/cover.txt": "same" for folder in "ab"})
        make(
            {
                "b.csv": "file,title\nm/b/cover.txt,B\n",
                "meta.csv": "file,title\na/cover.txt,A\nb/cover.txt,B\n",
            }
        )
        assert run("m/b/cover.txt", "--metadata", "b.csv")[0] == 0
        found = run("m", "--metadata", "meta.csv", "--parallel", "1")
        assert found[:2] == (0, {"a/cover.txt": ["uploaded"], "b/cover.txt": ["unchanged"]})
        assert sorted(each["title"] for each in objects()) == ["A", "B"]

    def test_a_description_that_is_not_applied(self, run, make, objects):
        make({"a.txt": "a", "b.txt": "b", "meta.csv": "file,title\na.txt,Title\n"})
        assert run("a.txt", "b.txt")[0] == 0
        found = run("a.txt", "b.txt", "--metadata", "meta.csv")
        assert found[:2] == (1, {"a.txt": ["conflict"], "b.txt": ["unchanged"]})
        assert all("title" not in each for each in objects())

    @pytest.mark.parametrize(
        "name", ["a%22b.txt", "a%0Ab.txt", 'a"b%22.txt', "100%.txt", "ü;x=1.txt"]
    )
    def test_names_are_stored_as_they_are(self, run, make, objects, name):
        make({name: "text"})
        assert run(name)[1] == {name: ["uploaded"]}
        (found,) = objects()
        assert (found["fileName"], found["attachment"]["filename"]) == (name, name)
        assert run(name)[1] == {name: ["unchanged"]}

    def test_a_name_that_is_a_path_elsewhere(self, run, make, objects):
        make({"C:\\b.txt": "text"})
        assert run("C:\\b.txt")[:2] == (1, {"C:\\b.txt": ["refused"]})
        assert objects() == []

    def test_a_renamed_object(self, server, run, make, objects):
        make({"IMG_1.txt": "text"})
        assert run("IMG_1.txt")[0] == 0
        (found,) = objects()
        url = f"{server.url}/content/_media/{found['id']}"
        body = {"fileName": "Sunrise.txt"}
        requests.patch(url, json=body, auth=ALICE, timeout=60).raise_for_status()
        make({"Sunrise.txt": "text"})
        assert run("IMG_1.txt")[1] == {"IMG_1.txt": ["unchanged"]}
        assert run("Sunrise.txt")[1] == {"Sunrise.txt": ["unchanged"]}

    def test_two_files_of_one_name(self, run, make, objects):
        make({"day1/IMG_1.txt": "one", "day2/IMG_1.txt": "two"})
        assert run("day1", "day2")[:2] == (0, {"IMG_1.txt": ["uploaded"] * 2})
        assert run("day1", "day2")[:2] == (0, {"IMG_1.txt": ["unchanged"] * 2})
        assert len(objects()) == 2

    def test_a_file_that_is_given_twice(self, run, make, objects):
        make({"day1/IMG_1.txt": "one"})
        expected = {"IMG_1.txt": ["skipped", "uploaded"]}
        assert run("day1/IMG_1.txt", "./day1")[:2] == (0, expected)
        assert run("day1", "day1/../day1/IMG_1.txt")[1] == {"IMG_1.txt": ["skipped", "unchanged"]}
        assert len(objects()) == 1

    @pytest.mark.parametrize(
        "path", ["IMG_1.txt", "./IMG_1.txt", "./days/IMG_1.txt", "{cwd}/days/IMG_1.txt"]
    )
    def test_paths_in_the_table(self, run, make, objects, path, tmp_path):
        table = f"file,title\n{path.format(cwd=tmp_path)},Title\n"
        make({"days/IMG_1.txt": "one", "meta.csv": table})
        assert run("days", "--metadata", "meta.csv")[0] == 0
        assert [each["title"] for each in objects()] == ["Title"]

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_unicode_in_the_table(self, run, make, objects, form):
        """A Mac and a keyboard write accents in different ways."""
        other = {"NFC": "NFD", "NFD": "NFC"}[form]
        make({unicodedata.normalize(form, "m/été.txt"): secrets.token_hex()})
        make({"meta.csv": unicodedata.normalize(other, "file,title\nété.txt,Title\n")})
        assert run("m", "--metadata", "meta.csv")[0] == 0
        assert [each["title"] for each in objects()] == ["Title"]

    def test_a_table_that_is_ambiguous(self, run, make, objects):
        make({"day1/IMG_1.txt": "one", "day2/IMG_1.txt": "two"})
        make({"meta.csv": "file,title\nIMG_1.txt,X\n"})
        status, found, said = run("day1", "day2", "--metadata", "meta.csv")
        assert (status, found) == (2, {})
        assert "several files are called IMG_1.txt: write day1/IMG_1.txt or day2/IMG_1.txt" in said
        make({"meta.csv": "file,title\nday1/IMG_1.txt,X\nday2/IMG_1.txt,Y\n"})
        assert run("day1", "day2", "--metadata", "meta.csv")[0] == 0
        assert sorted(each["title"] for each in objects()) == ["X", "Y"]
        make({"meta.csv": "file,title\nday1/IMG_1.txt,X\nIMG_1.txt,Y\n"})
        status, found, said = run("day1", "--metadata", "meta.csv")
        assert (status, found) == (2, {}) and "describes day1/IMG_1.txt twice" in said

    def test_a_file_that_changes_before_it_is_sent(self, run, make, objects, monkeypatch):
        make({"a.txt": "before"})
        original = library.hash_of

        def hash_of(path, client):
            digest = original(path, client)
            make({"a.txt": "after."})
            return digest

        monkeypatch.setattr(library, "hash_of", hash_of)
        assert run("a.txt")[:2] == (1, {"a.txt": ["changed"]})
        assert objects() == []


class TestFailureInBetween:
    """What was done until then is printed, and counted."""

    def test_is_told(self, server, make, tmp_path):
        make({f"{number}.txt": str(number) for number in range(6)})
        record = HTTPRecord(server)
        *_, bucket, _, name = record.collection.split("/")
        left = [None] * 3

        def misbehave(handler, answer):
            if answer is None and handler.command == "POST":
                if not left:
                    handler.answer(401, {}, b"{}")
                    return True
                left.pop()

        with Proxy(server.url, misbehave) as proxy:
            where = ["--server", proxy.url, "--bucket", bucket, "--collection", name]
            options = ["--auth", "alice:secret", "--parallel", "1"]
            status, lines, said = shell("upload", tmp_path, *where, *options)
        assert (status, len(lines)) == (2, 3)
        assert said.splitlines()[0] == "3 uploaded, then it failed:"
        assert "wants to know who you are" in said.splitlines()[1]
