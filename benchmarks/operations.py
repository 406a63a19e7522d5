"""What the commands of an operator cost on a server with many files.

::

    python -m benchmarks.operations [--links N]

PostgreSQL and local files; each command is a process of its own, with its findings thrown away. One
file is attached over HTTP, and its rows are copied by SQL with other ids and another key, as a
million uploads take hours. There are one in a hundred objects more, which no record has.
"""

import argparse
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from hashlib import md5
from pathlib import Path
from uuid import UUID

import psutil
import psycopg2

from tests.servers.postgresql import PostgreSQL
from tests.servers.wsgi import BIN, INI
from tests.site import SETTINGS, Record, Site

FEW = 1000
CONTENT = b"the same in each"
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

# Rows like these two, of the record :record with the key :key, for each number.
COPY = """
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT replace(replace(id, %(key)s, other_key), %(record)s, other_record),
           replace(parent_id, %(record)s, other_record),
           resource_name,
           last_modified - number * INTERVAL '1 millisecond',
           replace(replace(data::text, %(key)s, other_key), %(record)s, other_record)::jsonb,
           deleted
      FROM objects, generate_series(1, %(count)s) AS number,
           LATERAL (SELECT md5('record ' || number) AS other_record,
                           md5('key ' || number)::uuid::text AS other_key)
     WHERE resource_name IN ('record', 'attachment-link')
"""


def fill(url: str, record: Record, uuid: str, count: int) -> None:
    """Copy the rows of the record.

    :param uuid: by which its key differs from the others.
    """
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        # The trigger looks for the latest row of the collection, for each.
        cursor.execute("ALTER TABLE objects DISABLE TRIGGER USER")
        cursor.execute(COPY, {"record": record.id, "key": uuid, "count": count})
        cursor.execute("ALTER TABLE objects ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE objects")
    connection.close()


def write_objects(path: Path, uuid: str, count: int) -> None:
    """The files of the copied rows, and those that nobody has."""
    names = [("key", count), ("nobody's", count // 100)]
    for kind, many in names:
        for number in range(1, many + 1):
            name = str(UUID(md5(f"{kind} {number}".encode()).hexdigest()))
            descriptor = os.open(
                path.with_name(path.name.replace(uuid, name)), os.O_CREAT | os.O_WRONLY
            )
            os.write(descriptor, CONTENT)
            os.close(descriptor)


@contextmanager
def server(folder: Path, postgresql: PostgreSQL, links: int):
    """The folder with the ini file of a server that has so many links."""
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
    fill(url, record, path.stem, links - 1)
    write_objects(path, path.stem, links - 1)
    yield folder


def write_ini(path: Path, settings: dict[str, str]) -> None:
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    path.write_text(INI.format(settings=lines.replace("%", "%%"), port=0))


def measure(folder: Path, arguments: list[str]) -> dict[str, float]:
    """What a command costs; its memory is the kernel's word, a moment before its end."""
    command = [str(BIN / "kinto-attachment"), *arguments, "--json", "--ini", "kinto.ini"]
    started = time.monotonic()
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=errors)
        status, cpu, peak = Path(f"/proc/{process.pid}/status"), 0.0, 0.0
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            found = status.read_text().partition("VmHWM:")[2].split()
            if found:  # it is no zombie yet
                peak = int(found[0]) / 1024
                cpu = sum(watched.cpu_times()[:2])
            time.sleep(0.02)
    said = (folder / "errors").read_text()
    assert process.returncode in (0, 1) and "Traceback" not in said, said
    return {"cpu": cpu, "memory": peak, "seconds": time.monotonic() - started}


def run(folder: Path, counts: list[int]) -> dict[str, list[dict[str, float]]]:
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    with ExitStack() as stack:
        postgresql = stack.enter_context(PostgreSQL(folder))
        for links in counts:
            place = stack.enter_context(server(folder / str(links), postgresql, links))
            for name, arguments in COMMANDS.items():
                measured[name].append(measure(place, arguments))
    return measured


def report(counts: list[int], measured: dict[str, list[dict[str, float]]]) -> None:
    print(f"{'links':18}" + "".join(f"{links:33}" for links in counts))
    print(f"{'':18}" + f"{'seconds':>11}{'CPU s':>11}{'peak MiB':>11}" * len(counts))
    for name, costs in measured.items():
        cells = (
            f"{cost['seconds']:11.1f}{cost['cpu']:11.1f}{cost['memory']:11.1f}" for cost in costs
        )
        print(f"{name:18}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description="The commands of an operator, measured")
    parser.add_argument("--links", type=int, default=100_000)
    links = parser.parse_args().links
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        measured = run(Path(folder), [FEW, links])
    report([FEW, links], measured)


if __name__ == "__main__":
    main()
