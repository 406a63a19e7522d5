"""Clients of ``kinto_attachment.transfer``, their findings, and folders of files."""

import re
import secrets
import threading
from contextlib import contextmanager
from pathlib import Path

from kinto_attachment.transfer.client import Client
from tests.support.http_record import ALICE

CONTENT = secrets.token_bytes(3_000_003)
AUTH = ":".join(ALICE)


@contextmanager
def client_of(record, auth=AUTH, url=None, **options):
    """A client of the collection of a record, which leaves no thread behind."""
    match = re.search("/buckets/([^/]+)/collections/([^/]+)", record.record)
    with Client(url or record.server.url, *match.groups(), auth, **options) as client:
        yield client
        assert not [t for t in threading.enumerate() if t.name.startswith("transfer")]


def kinds(findings) -> dict[str, int]:
    """Count the findings of each kind; only transferred and skipped files are no problem."""
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
        assert finding.is_problem == (
            finding.kind not in ("uploaded", "downloaded", "unchanged", "skipped")
        )
    return found


def one(findings):
    (finding,) = list(findings)
    return finding


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make_files(folder: Path, count: int) -> dict[str, bytes]:
    for number in range(count):
        path = folder / f"f{number % 7}" / f"{number} été 写真.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secrets.token_bytes(number * 331))
    return files_in(folder)
