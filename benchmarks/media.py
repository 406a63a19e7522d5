"""The media store: many posts of one body, and how fast what is pending is verified.

::

    python -m benchmarks.media [--storage local|s3] [--size MIB] [--runs N]

The floor of the posts is one client after the other; that of the verifier is ``sha256sum`` over the
same files.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from statistics import median

import requests
import transaction

from kinto_attachment.verify import Verifier
from tests.servers.wsgi import GunicornProcesses
from tests.site import Site

from .machine import MIB, kinto_settings

AUTH = ("alice", "secret")
POSTS, FILES = 200, 16


def post_at_once(url: str, content: bytes, threads: int) -> tuple[float, Counter]:
    """So many posts; the seconds that they took, and what was answered."""

    def post(number: int) -> int:
        auth = (f"user{number}", "secret")
        return requests.post(f"{url}/media", data=content, auth=auth, timeout=300).status_code

    started = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        statuses = Counter(pool.map(post, range(POSTS)))
    return time.monotonic() - started, statuses


def verify(site: Site, url: str, files: list[Path]) -> float:
    """Store the files to be verified later, and verify them; the seconds of that."""
    for path in files:
        with path.open("rb") as file:
            digest = sha256(path.read_bytes()).hexdigest()
            answer = requests.post(
                f"{url}/media/{digest}?verify=false", data=file, auth=AUTH, timeout=300
            )
            answer.raise_for_status()
    verifier = Verifier(site.registry.attachment_media, lambda: site.registry.metrics)
    started = time.monotonic()
    kinds = Counter(finding.kind for finding in verifier.verify())
    seconds = time.monotonic() - started
    assert kinds == {"verified": len(files)}, kinds
    for path in files:
        digest = sha256(path.read_bytes()).hexdigest()
        requests.delete(f"{url}/media/{digest}", auth=AUTH, timeout=300).raise_for_status()
    transaction.abort()
    return seconds


def sum_files(files: list[Path]) -> float:
    started = time.monotonic()
    subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    parser.add_argument("--size", type=int, default=64, help="MiB of each file (64)")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = kinto_settings(stack, folder, options.storage)
        site = Site(**settings)
        server = stack.enter_context(GunicornProcesses(settings, folder))
        files = []
        for number in range(FILES):
            files.append(folder / f"{number}.bin")
            files[-1].write_bytes(os.urandom(options.size * MIB))
        rows: dict[str, list[float]] = {}
        for _ in range(options.runs):
            for threads in (1, 200):
                seconds, statuses = post_at_once(server.url, os.urandom(MIB), threads)
                assert statuses == {201: POSTS}, statuses
                rows.setdefault(f"{POSTS} posts of 1 MiB, {threads} at once", []).append(seconds)
            rows.setdefault("sha256sum", []).append(sum_files(files))
            rows.setdefault("verifier", []).append(verify(site, server.url, files))
        site.close()
    total = FILES * options.size
    print(f"{options.storage:34}{'seconds':>10}{'MiB/s':>10}{'of floor':>10}")
    medians = {name: median(seconds) for name, seconds in rows.items()}
    for name, seconds in medians.items():
        moved = POSTS if "posts" in name else total
        floor = medians["sha256sum"] if moved == total else next(iter(medians.values()))
        print(f"{name:34}{seconds:10.2f}{moved / seconds:10.0f}{floor / seconds:10.2f}")


if __name__ == "__main__":
    main()
