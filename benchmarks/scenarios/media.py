"""The media store: many uploads of one body, and how fast pending uploads are verified."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import requests
import transaction

from kinto_attachment.media.verifier import Verifier
from tests.support.site import Site

from ..harness.environment import OURS, Environment
from ..harness.process_stats import MIB, Cost, in_turns
from ..report import Table, Target, ratio

AUTH = ("alice", "secret")
POSTS, FILES = 200, 16


def run(environment: Environment) -> Table:
    """Measure in a folder."""
    return _run(environment, "local")


def run_s3(environment: Environment) -> Table:
    """Measure on SeaweedFS."""
    return _run(environment, "s3")


def _run(environment: Environment, storage: str) -> Table:
    size, runs = environment.pick(64, 4), environment.pick(3, 1)
    server = environment.server(OURS, storage, workers=2, threads=50)
    site = Site(**server.settings)
    files = _make_files(environment.make_folder(), size)
    single = environment.pick(POSTS, 20)
    one, many = f"{single} posts of 1 MiB, in turns", f"{POSTS} posts of 1 MiB at once"
    rows: dict[str, Callable[[], Cost]] = {
        one: lambda: _post(server.url, single, 1),
        many: lambda: _post(server.url, POSTS, POSTS),
        "sha256sum": lambda: _sum(files),
        "verifier": lambda: _verify(site, server.url, files),
    }
    costs = in_turns(rows, runs)
    site.close()
    lines = {}
    for name, cost in costs.items():
        posts = {one: single, many: POSTS}.get(name)
        moved = posts or FILES * size
        lines[name] = {
            "seconds": cost["seconds"],
            "MiB/s": moved / cost["seconds"],
            "failed": cost.get("failed"),
        }
        floor = lines[one if posts else "sha256sum"]
        lines[name]["x floor"] = ratio(lines[name]["MiB/s"], floor["MiB/s"])
    speed = lines["verifier"]["x floor"]
    what = "S3" if storage == "s3" else storage
    targets = [
        Target(f"{POSTS} posts at once, {what}: failed", costs[many]["failed"], 0),
        Target(f"verifier, {what}: speed relative to sha256sum", speed, 0.8, True),
    ]
    notes = [
        "The floor is one client, or sha256sum over the same files.",
        "The existing plugin has no media store.",
    ]
    title = f"Media store, {what}: posts, {FILES} files of {size} MiB (medians of {runs})"
    return Table(title, ["seconds", "MiB/s", "x floor", "failed"], lines, targets, notes)


def _make_files(folder: Path, size: int) -> list[Path]:
    files = [folder / f"{number}.bin" for number in range(FILES)]
    for path in files:
        path.write_bytes(os.urandom(size * MIB))
    return files


def _post(url: str, posts: int, threads: int) -> Cost:
    """Upload one new body, each time as another user."""
    content = os.urandom(MIB)

    def post(number: int) -> int:
        auth = (f"user{number}", "secret")
        return requests.post(f"{url}/media", data=content, auth=auth, timeout=300).status_code

    started = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        statuses = Counter(pool.map(post, range(posts)))
    seconds = time.monotonic() - started
    return {"seconds": seconds, "failed": posts - statuses[201]}


def _verify(site: Site, url: str, files: list[Path]) -> Cost:
    """Upload the files without verification, then verify them; return the cost of the latter."""
    media = [f"{url}/media/{sha256(path.read_bytes()).hexdigest()}" for path in files]
    for path, address in zip(files, media, strict=True):
        with path.open("rb") as file:
            answer = requests.post(f"{address}?verify=false", data=file, auth=AUTH, timeout=300)
        answer.raise_for_status()
    verifier = Verifier(site.plugin, site.registry.attachment_verifications)
    started = time.monotonic()
    kinds = Counter(finding.kind for finding in verifier.verify())
    seconds = time.monotonic() - started
    assert kinds == {"verified": len(files)}, kinds
    for address in media:
        requests.delete(address, auth=AUTH, timeout=300).raise_for_status()
    transaction.abort()
    return {"seconds": seconds}


def _sum(files: list[Path]) -> Cost:
    started = time.monotonic()
    subprocess.run(["sha256sum", *files], check=True, stdout=subprocess.DEVNULL)
    return {"seconds": time.monotonic() - started}
