"""What the commands for operators cost on a server with many files.

::

    python -m benchmarks.scenarios.operations [--links N]

The server has PostgreSQL and local files. Each command is a process of its own; its findings are
discarded. One file is attached over HTTP, and its rows are copied by SQL with other ids and another
key, because a million uploads would take hours. For every hundred files with a record, there is one
without.
"""

import argparse
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.wsgi import BIN, INI
from tests.support.site import SETTINGS, Site

from ..harness.seed import CONTENT, copied_keys, copy_rows, write_files

FEW_LINKS = 1000
COMMANDS = {
    "fsck": ["fsck"],
    "gc --dry-run": ["gc", "--older-than", "0", "--dry-run"],
    "gc": ["gc", "--older-than", "0"],
    "migrate --dry-run": ["migrate", "--to", "other.ini", "--dry-run"],
    "rebase --dry-run": [
        *("rebase", "--from", SETTINGS["kinto.attachment.base_url"]),
        *("--to", "https://new.example/", "--dry-run"),
    ],
}


@contextmanager
def server(folder: Path, postgresql: PostgreSQL, links: int):
    """Yield a folder with ``kinto.ini``, for a server that has so many links, and ``other.ini``,
    for the same server with an empty storage."""
    folder.mkdir()
    url = postgresql.create_database()
    settings = {
        **SETTINGS,
        "kinto.storage_backend": "kinto.core.storage.postgresql",
        "kinto.storage_url": url,
        "kinto.permission_backend": "kinto.core.permission.postgresql",
        "kinto.permission_url": url,
        "kinto.attachment.base_path": str(folder / "files"),
    }
    write_ini(folder / "kinto.ini", settings)
    other = {**settings, "kinto.attachment.base_path": str(folder / "other")}
    write_ini(folder / "other.ini", other)
    site = Site(**settings)
    record = site.collection().record()
    key = site.key(record.upload(CONTENT).json["location"])
    site.close()
    path = folder / "files" / key
    copy_rows(url, record.id, path.stem, links - 1)
    for kind, count in (("key", links - 1), ("no record", links // 100)):
        keys = copied_keys(key, path.stem, count, kind)
        write_files(folder / "files" / other for other in keys)
    yield folder


def write_ini(path: Path, settings: dict[str, str]) -> None:
    """Write an ini file with these settings."""
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    path.write_text(INI.format(settings=lines.replace("%", "%%"), port=0))


def measure(folder: Path, arguments: list[str]) -> dict[str, float]:
    """Run a command, and return what it cost. Its CPU seconds and its peak memory are read from the
    kernel until shortly before it ends."""
    command = [str(BIN / "kinto-attachment"), *arguments, "--json", "--ini", "kinto.ini"]
    started = time.monotonic()
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        status, cpu, peak = Path(f"/proc/{process.pid}/status"), 0.0, 0.0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            found = status.read_text().partition("VmHWM:")[2].split()
            if found:  # a process that has ended shows no memory
                peak = int(found[0]) / 1024
                cpu = sum(watched.cpu_times()[:2])
            time.sleep(0.02)
    errors_text = (folder / "errors").read_text()
    assert process.returncode in (0, 1) and "Traceback" not in errors_text, errors_text
    return {"cpu": cpu, "memory": peak, "seconds": time.monotonic() - started}


def run(folder: Path, counts: list[int]) -> dict[str, list[dict[str, float]]]:
    """Measure all commands on servers with so many links; return the costs by command."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    with ExitStack() as stack:
        postgresql = stack.enter_context(PostgreSQL(folder))
        for links in counts:
            place = stack.enter_context(server(folder / str(links), postgresql, links))
            for name, arguments in COMMANDS.items():
                measured[name].append(measure(place, arguments))
    return measured


def report(counts: list[int], measured: dict[str, list[dict[str, float]]]) -> None:
    """Print a table of the costs."""
    print(f"{'links':18}" + "".join(f"{links:33}" for links in counts))
    print(f"{'':18}" + f"{'seconds':>11}{'CPU s':>11}{'peak MiB':>11}" * len(counts))
    for name, costs in measured.items():
        cells = (
            f"{cost['seconds']:11.1f}{cost['cpu']:11.1f}{cost['memory']:11.1f}" for cost in costs
        )
        print(f"{name:18}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the commands for operators.")
    parser.add_argument("--links", type=int, default=100_000)
    links = parser.parse_args().links
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        measured = run(Path(folder), [FEW_LINKS, links])
    report([FEW_LINKS, links], measured)


if __name__ == "__main__":
    main()
