"""tus-js-client and Uppy in a browser: pages of another origin, which go offline and reload."""

import json
import secrets
from hashlib import sha256

import pytest
import requests

from tests.support import tus_js
from tests.support.http_record import ALICE, BOB, HTTPRecord
from tests.support.node import NODE, NPM
from tests.support.servers.outage import FaultyProxy
from tests.support.tus import basic

pytestmark = pytest.mark.skipif(
    not (NODE and NPM and tus_js.CHROMIUM), reason="Node or Chromium is not installed"
)

MIB = 1024 * 1024
SIZE = 4 * MIB

RETRIES = [10] * 30
"""What a request had sent before it was cut off may still be on its way into the storage when the
client asks for the offset. The next request is then a 409, and clients try again."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with tus_js.browser(tus_js.install(tmp_path_factory.mktemp("tus-browser"))) as script:
        yield script


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    path.write_bytes(secrets.token_bytes(SIZE))
    return path


@pytest.fixture
def record(two_processes):
    return HTTPRecord(two_processes)


@pytest.fixture
def page(browser, film):
    """A page that is shown for the first time. The user has chosen the file."""
    browser.do("visit")
    browser.do("choose", path=str(film))
    return browser


@pytest.fixture
def line(two_processes):
    with FaultyProxy(two_processes.port) as line:
        yield line


def through(line: FaultyProxy, record: HTTPRecord) -> str:
    """Return the URL of the attachment behind the proxy."""
    return record.url.replace(f":{record.server.port}", f":{line.port}")


def options_of(url: str, user: tuple[str, str] = ALICE, **more) -> dict:
    return {
        "endpoint": f"{url}/uploads",
        "headers": basic(user),
        "metadata": {"filename": "film.mp4", "filetype": "video/mp4"},
        "chunkSize": MIB // 2,
        "retryDelays": [],
        **more,
    }


def upload(options: dict, **how) -> str:
    """Return the expression that uploads the file with tus-js-client."""
    return f"upload({json.dumps(options)}, {json.dumps(how)})"


def check(record: HTTPRecord, film) -> None:
    content = film.read_bytes()
    data = requests.get(record.record, auth=ALICE, timeout=30).json()["data"]
    attachment = data["attachment"]
    assert attachment["hash"] == sha256(content).hexdigest()
    assert (attachment["size"], attachment["filename"]) == (len(content), film.name)
    assert attachment["mimetype"] == "video/mp4"
    assert record.get().content == content


class TestTus:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"chunkSize": 10 * SIZE},
            {"uploadDataDuringCreation": True},
            {"overridePatchMethod": True, "addRequestId": True},
            {"parallelUploads": 3},
        ],
        ids=lambda more: "-".join(more) or "plain",
    )
    def test_upload(self, page, record, film, more):
        outcome = page.do("evaluate", code=upload(options_of(record.url, **more)))
        assert "error" not in outcome, outcome
        assert outcome["headers"]["Tus-Resumable"] == "1.0.0"
        if "parallelUploads" not in more:
            assert outcome["headers"]["Content-Location"] == record.url
        check(record, film)

    def test_size_is_unknown_until_the_end(self, page, record, film):
        """The last request is empty, and tells the size."""
        options = options_of(record.url, uploadLengthDeferred=True)
        code = f"""run(
            tus, chosen().stream().getReader(),
            {{...{json.dumps(options)}, fingerprint: async () => null}},
        )"""
        outcome = page.do("evaluate", code=code)
        assert "error" not in outcome, outcome
        check(record, film)

    @pytest.mark.parametrize("more", [{}, {"parallelUploads": 2}], ids=["plain", "parallel"])
    def test_reload_and_resume(self, page, record, film, line, more):
        """The page finds the URL of the upload in localStorage, and forgets it in the end."""
        line.slow(8 * MIB)
        options = options_of(through(line, record), retryDelays=RETRIES, **more)
        options["removeFingerprintOnSuccess"] = True
        page.do("start", code=upload(options))
        page.do("until", code=f"accepted >= {MIB if not more else 1}")
        page.do("reload")
        assert page.do("evaluate", code="localStorage.length") == 1
        line.recover()
        page.do("choose", path=str(film))
        outcome = page.do("evaluate", code=upload(options, resume=True))
        assert "error" not in outcome, outcome
        first, second = outcome["requests"][:2]
        assert first[0] == "HEAD"
        if not more:
            assert second[0] == "PATCH" and int(second[2]) >= MIB
            assert "POST" not in [method for method, _, _ in outcome["requests"]]
        assert page.do("evaluate", code="localStorage.length") == 0
        check(record, film)

    def test_line_breaks(self, page, record, film, line):
        line.cut_at(200_000, MIB, 300_001, 5)
        options = options_of(through(line, record), retryDelays=RETRIES)
        outcome = page.do("evaluate", code=upload(options))
        assert "error" not in outcome, outcome
        check(record, film)

    def test_offline(self, page, record, film, line):
        """The client gives up while the browser is offline, and goes on when told to."""
        line.slow(8 * MIB)
        options = options_of(through(line, record), retryDelays=RETRIES)
        code = f"window.outcome = null, {upload(options)}.then((done) => window.outcome = done)"
        page.do("start", code=code)
        page.do("until", code=f"accepted >= {MIB}")
        page.do("offline", value=True)
        page.do("until", code="outcome")
        assert page.do("evaluate", code="outcome.error && navigator.onLine === false")
        page.do("offline", value=False)
        line.recover()
        outcome = page.do("evaluate", code=upload(options, resume=True))
        assert "error" not in outcome, outcome
        assert outcome["requests"][0][0] == "HEAD"
        assert int(outcome["requests"][1][2]) >= MIB
        check(record, film)

    def test_refusals_can_be_read(self, page, record, film):
        """The page of another origin may read the status and the body of an error."""
        refused = page.do("evaluate", code=upload(options_of(record.url, BOB)))
        assert refused["status"] == 403
        assert json.loads(refused["body"])["error"] == "Forbidden"
        options = options_of(record.url, metadata={"filename": "film.exe"})
        refused = page.do("evaluate", code=upload(options))
        assert refused["status"] == 400
        assert json.loads(refused["body"])["message"] == "header: File extension is not allowed."

    def test_other_users(self, page, record, film):
        begun = page.do("evaluate", code=upload(options_of(record.url), stopAt=MIB))
        options = options_of(record.url, BOB, uploadUrl=begun["url"], endpoint=None)
        refused = page.do("evaluate", code=upload(options))
        assert refused["requests"] == [["HEAD", 403, None]]


UPPY = """
window.events = [];
window.uppy = new Uppy().use(Tus, OPTIONS);
uppy.on("upload-error", (file, error) => events.push(error.message));
uppy.on("upload-success", (file, response) => events.push(response.uploadURL));
uppy.addFile({ name: "film.mp4", type: "video/mp4", data: chosen() });
"""


class TestUppy:
    def prepare(self, page, url: str, **more) -> None:
        options = options_of(url, **more)
        del options["metadata"]
        code = UPPY.replace("OPTIONS", json.dumps(options))
        page.do("evaluate", code=f"{{{code}}} null")

    def test_upload(self, page, record, film):
        self.prepare(page, record.url)
        failed = page.do("evaluate", code="uppy.upload().then(({ failed }) => failed.length)")
        assert failed == 0, page.do("evaluate", code="events")
        assert page.do("evaluate", code="events[0]").startswith(f"{record.url}/uploads/")
        check(record, film)

    def test_pause_and_resume(self, page, record, film, line):
        line.slow(8 * MIB)
        self.prepare(page, through(line, record), retryDelays=RETRIES)
        page.do("start", code="uppy.upload()")
        page.do("until", code=f"uppy.getFiles()[0].progress.bytesUploaded >= {MIB}")
        page.do("evaluate", code="uppy.pauseAll()")
        line.recover()
        page.do("evaluate", code="uppy.resumeAll()")
        page.do("until", code="events.length")
        check(record, film)

    def test_offline(self, page, record, film, line):
        """Uppy waits until the browser is online again, and goes on by itself."""
        line.slow(8 * MIB)
        self.prepare(page, through(line, record), retryDelays=RETRIES)
        page.do("start", code="uppy.upload()")
        page.do("until", code=f"uppy.getFiles()[0].progress.bytesUploaded >= {MIB}")
        page.do("offline", value=True)
        line.recover()
        page.do("evaluate", code="new Promise((resolve) => setTimeout(resolve, 500))")
        assert page.do("evaluate", code="events") == []
        page.do("offline", value=False)
        page.do("until", code="events.length")
        check(record, film)

    def test_reload_and_resume(self, page, record, film, line):
        line.slow(8 * MIB)
        self.prepare(page, through(line, record), retryDelays=RETRIES)
        page.do("start", code="uppy.upload()")
        page.do("until", code=f"uppy.getFiles()[0].progress.bytesUploaded >= {MIB}")
        page.do("reload")
        line.recover()
        page.do("choose", path=str(film))
        self.prepare(page, through(line, record), retryDelays=RETRIES)
        failed = page.do("evaluate", code="uppy.upload().then(({ failed }) => failed.length)")
        assert failed == 0, page.do("evaluate", code="events")
        assert line.up < SIZE
        check(record, film)

    def test_remove_a_file(self, page, record, film, line):
        """Uppy deletes the upload on the server."""
        line.slow(8 * MIB)
        self.prepare(page, through(line, record), retryDelays=RETRIES)
        page.do("start", code="uppy.upload()")
        page.do("until", code=f"uppy.getFiles()[0].progress.bytesUploaded >= {MIB}")
        line.recover()
        page.do("evaluate", code="uppy.removeFile(uppy.getFiles()[0].id)")
        headers = {"Tus-Resumable": "1.0.0"}
        page.do("evaluate", code="new Promise((resolve) => setTimeout(resolve, 1000))")
        listed = requests.get(f"{record.url}/uploads", auth=ALICE, headers=headers, timeout=30)
        assert listed.json() == []
