"""``upload_media``: files and their descriptions, to the media library."""

import json

import pytest
import requests

from kinto_attachment.errors import CommandFailed
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.library import Description, read_descriptions, upload_media
from kinto_attachment.transfer.upload import upload
from tests.support.http_record import ALICE
from tests.support.library import jpeg
from tests.support.servers.proxy import Proxy
from tests.support.servers.wsgi import Gunicorn
from tests.support.transfers import AUTH, Told, kinds, one

NOTHING = Description()


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {
        **file_settings("local"),
        "kinto.attachment.library.bucket": "site",
        "kinto.attachment.resources.site.media.max_size": "100000",
    }
    with Gunicorn(settings, tmp_path_factory.mktemp("library")) as server:
        for uri in ("buckets/site", "buckets/site/collections/media"):
            requests.put(f"{server.url}/{uri}", auth=ALICE, timeout=60).raise_for_status()
        yield server


@pytest.fixture
def client(server):
    with Client(server.url, "", "", AUTH) as client:
        yield client
    records = f"{server.url}/buckets/site/collections/media/records"
    requests.delete(records, auth=ALICE, timeout=60).raise_for_status()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "trip").mkdir(parents=True)
    (folder / "sun.jpg").write_bytes(jpeg(30, 20))
    (folder / "trip" / "été.jpg").write_bytes(jpeg(20, 30))
    (folder / "notes.pdf").write_bytes(b"%PDF-1.7\n%%EOF\n")
    return folder


def changed(change):
    """What a proxy does to make a server say something else about itself.

    :param change: changes the JSON of its root.
    """

    def misbehave(handler, answer):
        if answer is not None and handler.path == "/v1/":
            root = answer.json()
            change(root)
            handler.answer(200, {}, json.dumps(root).encode())
            return True

    return misbehave


def objects(server) -> dict[str, dict]:
    """The objects of the library, by the names of their files."""
    url = f"{server.url}/content/_media"
    rows = requests.get(url, auth=ALICE, timeout=60).json()["data"]
    found = {row["fileName"]: row for row in rows}
    assert len(found) == len(rows)
    return found


class TestUploadMedia:
    def test_describes(self, server, client, folder):
        single = {"trip/été.jpg": Description("Summer", tags=("sea", "sun"))}
        told = Told()
        found = upload_media(
            client, [folder], Description(alt="Ours", tags=("all",)), single, progress=told
        )
        assert kinds(found) == {"uploaded": 3}
        stored = objects(server)
        assert {name: each.get("title") for name, each in stored.items()} == {
            "été.jpg": "Summer",
            "sun.jpg": None,
            "notes.pdf": None,
        }
        assert all(each["alt"] == "Ours" for each in stored.values())
        assert (stored["été.jpg"]["tags"], stored["sun.jpg"]["tags"]) == (["sea", "sun"], ["all"])
        assert (stored["été.jpg"]["width"], stored["notes.pdf"]["type"]) == (20, "file")
        size = sum(each["size"] for each in stored.values())
        assert (told.files, told.expected, sum(told.bytes)) == (3, 3, size)
        assert told.expected_bytes == size

    def test_again(self, server, client, folder):
        """Neither the file nor its description is sent twice: an editor may have changed it."""
        assert kinds(upload_media(client, [folder], Description("Old"), {})) == {"uploaded": 3}
        edited = objects(server)["sun.jpg"]
        url = f"{server.url}/content/_media/{edited['id']}"
        requests.patch(url, json={"title": "Edited"}, auth=ALICE, timeout=60).raise_for_status()
        assert kinds(upload_media(client, [folder], Description("New"), {})) == {"unchanged": 3}
        stored = objects(server)
        assert (stored["sun.jpg"]["title"], stored["été.jpg"]["title"]) == ("Edited", "Old")
        (folder / "moon.jpg").write_bytes((folder / "sun.jpg").read_bytes())
        assert kinds(upload_media(client, [folder], NOTHING, {})) == {"unchanged": 3, "uploaded": 1}

    def test_dry_run(self, server, client, folder):
        (folder / "a.exe").write_bytes(b"MZ")
        files = [folder, folder.parent / "gone.png"]
        found = kinds(upload_media(client, files, NOTHING, {}, dry_run=True))
        assert found == {"uploaded": 3, "refused": 1, "failed": 1}
        assert objects(server) == {}
        assert kinds(upload_media(client, files, NOTHING, {})) == found

    def test_what_the_server_refuses(self, server, client, folder):
        (folder / "big.jpg").write_bytes(jpeg(30, 20) + b"x" * 100_000)
        found = one(upload_media(client, [folder / "big.jpg"], NOTHING, {}))
        assert found.kind == "refused" and "exceeds the limit" in found.detail

    @pytest.mark.parametrize("step", ["/media", "/content/_media"])
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_lost_connections(self, server, folder, client, step, when):
        """However often a step is repeated, each file becomes one object."""
        left = [1, 1]

        def misbehave(handler, answer):
            is_step = handler.command == "POST" and handler.path == f"/v1{step}"
            if is_step and left and (answer is None) == (when == "before"):
                left.pop()
                handler.reset()
                return True

        with Proxy(server.url, misbehave) as proxy, Client(proxy.url, "", "", AUTH) as other:
            assert kinds(upload_media(other, [folder], NOTHING, {})) == {"uploaded": 3}
        assert not left and len(objects(server)) == 3

    def test_a_file_that_is_not_there(self, server, client, folder):
        """Nothing is sent."""
        for names in (["trip/missing.jpg"], ["sun.jpg", "été.jpg", "trip/x.jpg"]):
            with pytest.raises(CommandFailed, match="not among those to upload"):
                list(upload_media(client, [folder], NOTHING, dict.fromkeys(names, NOTHING)))
        assert objects(server) == {}

    @pytest.mark.parametrize(
        "auth, why", [(None, "give --auth"), ("bob:secret", "This user may neither")]
    )
    def test_not_allowed(self, server, folder, auth, why):
        with Client(server.url, "", "", auth) as client, pytest.raises(CommandFailed, match=why):
            list(upload_media(client, [folder], NOTHING, {}))

    def test_a_server_without_library(self, server, folder):
        def change(root):
            del root["capabilities"]["media_library"]

        with (
            Proxy(server.url, changed(change)) as proxy,
            Client(proxy.url, "", "", AUTH) as client,
            pytest.raises(CommandFailed, match="has no media library: its operator has to set"),
        ):
            list(upload_media(client, [folder], NOTHING, {}))


def test_plain_upload_to_the_library_is_refused_once(server, folder):
    with (
        Client(server.url, "site", "media", AUTH) as client,
        pytest.raises(CommandFailed, match="use upload --library instead"),
    ):
        list(upload(client, [folder]))


class TestTable:
    @pytest.fixture
    def table(self, tmp_path):
        def table(content: str | bytes):
            path = tmp_path / "table.csv"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            return read_descriptions(path)

        return table

    def test_is_read(self, table):
        """In the order of columns that a spreadsheet happens to have, with its byte order mark."""
        assert table(
            '\ufefftags,file,title\r\nred; blue;,a/b.png,"Hello, world"\r\n,c.png,\r\n'
        ) == {
            "a/b.png": Description("Hello, world", "", ("red", "blue")),
            "c.png": Description(),
        }

    @pytest.mark.parametrize(
        "content, why",
        [
            ("", "has no column 'file'"),
            ("title\nx\n", "has no column 'file'"),
            ("file,titel\na,b\n", "unknown column 'titel': use file, title, alt, tags"),
            ("file;title\na;b\n", "unknown column 'file;title'"),
            ("file,title\na,b\na,c\n", "line 3: a is described twice"),
            ("file,title\n,b\n", "line 2: it names no file"),
            ("file,title\na,b,c\n", "line 2: it has more cells than columns"),
            ('file\n"a\n', "is not a CSV file"),
            (b"file\n\xff\n", "is not text in UTF-8"),
        ],
    )
    def test_is_refused(self, table, content, why):
        with pytest.raises(CommandFailed) as error:
            table(content)
        assert why in str(error.value)

    def test_is_missing(self, tmp_path):
        with pytest.raises(CommandFailed, match=r"gone.csv: No such file"):
            read_descriptions(tmp_path / "gone.csv")


class TestGeneralLimits:
    """A collection that does not exist yet cannot be asked: what the server says of all counts."""

    @pytest.mark.parametrize(
        "limits, refused",
        [
            ({"extensions": ["pdf"], "max_size": 0}, {"sun.jpg", "trip/été.jpg"}),
            ({"extensions": None, "max_size": 100}, {"sun.jpg", "trip/été.jpg"}),
            ({"extensions": ["pdf", "jpg"], "max_size": 100_000}, set()),
            ({}, set()),
        ],
    )
    def test_dry_run(self, server, folder, limits, refused):
        def change(root):
            root["capabilities"]["attachments"].update(limits)

        with (
            Proxy(server.url, changed(change)) as proxy,
            Client(proxy.url, "default", "new", "someone:new") as client,
        ):
            found = list(upload(client, [folder], dry_run=True))
        assert {each.key for each in found if each.kind == "refused"} == refused
        assert len(found) == 3
