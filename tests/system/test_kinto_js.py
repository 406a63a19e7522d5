"""kinto.js, which keeps attachments that the server does not have any more, and sends them back."""

from base64 import b64encode

import pytest
import requests

from tests.support.kinto_js import browsers, install
from tests.support.node import NODE, NPM
from tests.support.selection import mostly
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site

AUTH = ("alice", "secret")
BASIC = "Basic " + b64encode(b"alice:secret").decode()
STRATEGIES = ["manual", "server_wins", "client_wins"]

pytestmark = pytest.mark.skipif(not (NODE and NPM), reason="Node is not installed")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return install(tmp_path_factory.mktemp("kinto-js"))


@pytest.fixture(scope="module", params=mostly(["memory", "postgresql"], {"postgresql"}))
def server(request, kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinto-js-server")
    settings = {
        **kinto_settings(request.param, fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
    }
    if request.param == "postgresql":
        Site(**settings).close()  # creates the tables
    with Gunicorn(settings, folder) as server:
        server.files = folder / "files"
        requests.put(f"{server.url}/buckets/b", auth=AUTH, timeout=30).raise_for_status()
        yield server


class Synced:
    """A collection on the server, and the browsers that are synchronised with it."""

    def __init__(self, server, name: str, clients):
        self.url = f"{server.url}/buckets/b/collections/{name}"
        self.files = server.files / "b" / name
        self.do = clients.do
        requests.put(self.url, auth=AUTH, timeout=30).raise_for_status()

    def sync(self, client: str, strategy: str) -> None:
        """Synchronise until there is nothing left to resolve; every attempt must succeed."""
        if strategy == "manual":
            outcome = self.do(client, "resolve", "local")
        else:
            outcome = self.do(client, "sync", strategy)
        assert outcome["ok"] and not outcome["errors"], outcome

    def upload(self, content: bytes, record: str = "r") -> None:
        url = f"{self.url}/records/{record}/attachment"
        files = {"attachment": (f"{record}.txt", content)}
        requests.post(url, files=files, auth=AUTH, timeout=30).raise_for_status()

    def request(self, method: str, path: str) -> requests.Response:
        return requests.request(method, f"{self.url}/records/{path}", auth=AUTH, timeout=30)

    def records(self) -> dict[str, dict]:
        listed = requests.get(f"{self.url}/records", auth=AUTH, timeout=30).json()["data"]
        return {record["id"]: record for record in listed}

    def check(self, *clients: str) -> None:
        """Compare what the server has with its files, and with what each client has."""
        records = self.records()
        for record in records.values():
            if attachment := record.get("attachment"):
                response = self.request("GET", f"{record['id']}/attachment")
                assert response.status_code == 200
                assert response.headers["ETag"] == f'"{attachment["hash"]}"'
        stored = [path for path in self.files.rglob("*") if path.is_file()]
        assert len(stored) == sum("attachment" in record for record in records.values())
        for client in clients:
            listed = self.do(client, "list")
            assert {each["id"] for each in listed} == set(records)
            for each in listed:
                expected = records[each["id"]]
                assert each["title"] == expected["title"]
                assert each["last_modified"] == expected["last_modified"]


@pytest.fixture
def synced(server, script, request):
    name = f"c{abs(hash(request.node.name)) % 10**8}"
    with browsers(script, server.url, "b", name, BASIC) as clients:
        yield Synced(server, name, clients)


def _cases():
    """Yield what happens elsewhere, whether the client edits the record before it pulls that, and
    the strategy."""
    for change in ("remove", "replace", "delete", "recreate"):
        for pulled_first in (True, False):
            for strategy in STRATEGIES:
                marks = []
                if change == "delete" and not pulled_first and strategy != "client_wins":
                    reason = (
                        "kinto.js keeps an edited record that was deleted, with or without files"
                    )
                    marks = [pytest.mark.xfail(strict=True, reason=reason)]
                name = f"{change}-{'pulled' if pulled_first else 'conflict'}-{strategy}"
                yield pytest.param(change, pulled_first, strategy, id=name, marks=marks)


@pytest.mark.parametrize(("change", "pulled_first", "strategy"), list(_cases()))
def test_an_outdated_attachment_is_no_obstacle(synced, change, pulled_first, strategy):
    """The client edits the record offline, before or after it has pulled the change."""
    synced.do("one", "create", {"id": "r", "title": "first"})
    synced.sync("one", strategy)
    synced.upload(b"first")
    synced.sync("one", strategy)
    if not pulled_first:
        synced.do("one", "update", {"id": "r", "title": "offline"})
    if change == "remove":
        assert synced.request("DELETE", "r/attachment").status_code == 204
    elif change == "replace":
        synced.upload(b"second")
    else:
        assert synced.request("DELETE", "r").status_code == 200
    if change == "recreate":
        url = f"{synced.url}/records/r"
        body = {"data": {"title": "again"}}
        requests.put(url, json=body, auth=AUTH, timeout=30).raise_for_status()
    synced.sync("one", strategy)
    if "r" not in synced.records():
        synced.check("one")
        return
    for title in ("edited", "edited once more"):
        synced.do("one", "update", {"id": "r", "title": title})
        synced.sync("one", strategy)
    assert synced.records()["r"]["title"] == "edited once more"
    if change == "replace":
        assert synced.request("GET", "r/attachment").content == b"second"
    else:
        assert "attachment" not in synced.records()["r"]
    synced.check("one")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_clients(synced, strategy):
    synced.do("one", "create", {"id": "r", "title": "first"})
    synced.sync("one", strategy)
    synced.upload(b"first")
    for client in ("one", "two"):
        synced.sync(client, strategy)
    synced.do("two", "update", {"id": "r", "title": "by two"})
    assert synced.request("DELETE", "r/attachment").status_code == 204
    synced.sync("two", strategy)
    synced.do("one", "update", {"id": "r", "title": "by one"})
    for client in ("one", "two", "one"):
        synced.sync(client, strategy)
    for title in ("by two again", "and again"):
        synced.do("two", "update", {"id": "r", "title": title})
        for client in ("two", "one"):
            synced.sync(client, strategy)
    assert "attachment" not in synced.records()["r"]
    synced.check("one", "two")


@pytest.mark.parametrize("patch", [False, True], ids=["put", "patch"])
def test_kinto_http_js(synced, patch):
    """Its calls for attachments, and an update with the record as it was before."""
    uri = f"data:text/plain;name=a.txt;base64,{b64encode(b'first').decode()}"
    record = {"id": "r", "title": "first"}
    made = synced.do("one", "attach", {"record": record, "uri": uri})["data"]
    assert made["attachment"]["filename"] == "a.txt"
    assert synced.request("GET", "r/attachment").content == b"first"
    options = {"safe": True, "last_modified": made["last_modified"], "patch": patch}
    made["title"] = "second"
    before = synced.do("one", "put", {"record": made, "options": options})["data"]
    assert before["attachment"] == made["attachment"]
    synced.do("one", "detach", "r")
    edited = synced.do("one", "put", {"record": before, "options": {"patch": patch}})["data"]
    assert "attachment" not in edited
    synced.check()
