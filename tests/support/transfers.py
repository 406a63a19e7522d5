"""Clients of ``kinto_attachment.transfer``, their findings, and folders of files."""

import re
import secrets
import threading
from contextlib import contextmanager
from pathlib import Path

from kinto_attachment.finding import Progress
from kinto_attachment.transfer.client import Client
from tests.support.http_record import ALICE

CONTENT = secrets.token_bytes(3_000_003)
AUTH = ":".join(ALICE)


class Told(Progress):
    """A progress that keeps what it was told.

    :param look: is called with the number of bytes, too.
    """

    is_shown = True

    def __init__(self, look=lambda count: None):
        self._look = look
        self.bytes, self.files, self.expected, self.expected_bytes = [], 0, 0, 0

    def expect(self, files, size=None):
        self.expected += files
        self.expected_bytes += size or 0

    def expect_bytes(self, files, size):
        self.expected_bytes += size

    def add_bytes(self, count):
        self._look(count)
        self.bytes.append(count)

    def add_files(self, files=1, size=0, moved=0):
        self.files += files
        self.expected_bytes += moved - size


def make_client(record, auth=AUTH, url=None, **options):
    """Return a client of the collection of a record."""
    match = re.search("/buckets/([^/]+)/collections/([^/]+)", record.record)
    return Client(url or record.server.url, *match.groups(), auth, **options)


@contextmanager
def client_of(record, auth=AUTH, url=None, **options):
    """Yield a client of the collection of a record. Check that no thread is left in the end."""
    with make_client(record, auth, url, **options) as client:
        yield client
        assert not [t for t in threading.enumerate() if t.name.startswith("transfer")]


def kinds(findings) -> dict[str, int]:
    """Return how many findings of each kind there are. Check that all are problems except those
    about files that were transferred, put in order, kept or skipped."""
    good = ("uploaded", "downloaded", "unchanged", "reordered", "kept", "skipped")
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
        assert finding.is_problem == (finding.kind not in good)
    return found


def one(findings):
    """Return the only finding."""
    (finding,) = list(findings)
    return finding


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files in a folder, by their relative paths."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make_files(folder: Path, count: int) -> dict[str, bytes]:
    """Make files of several sizes in several folders; return them as :func:`files_in` does."""
    for number in range(count):
        path = folder / f"f{number % 7}" / f"{number} été 写真.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secrets.token_bytes(number * 331))
    return files_in(folder)
