"""Run all benchmarks, and print their tables.

::

    python -m benchmarks [NAME ...] [--quick] [--plots FOLDER]

``--only NAME ...`` is another way to name the rows.
"""

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.support.servers.existing import REQUIREMENTS, REUSE

from .harness.competitors import make_virtualenv
from .harness.environment import EXISTING, Environment
from .plot import plot
from .report import Table, summary
from .scenarios import (
    deletion,
    download,
    images,
    media,
    resumable,
    scale,
    slow,
    small,
    upload,
)

ROWS: dict[str, list[Callable[[Environment], Table | Iterator[Table]]]] = {
    "upload": [upload.run, upload.run_s3, upload.run_slow_client],
    "resumable": [resumable.run],
    "small": [small.run, small.run_parallel],
    "scale": [scale.run],
    "delete": [deletion.run],
    "slow": [slow.run],
    "download": [download.run, download.run_s3],
    "media": [media.run, media.run_s3],
    "images": [images.run],
}


def find_existing() -> Path | None:
    """Return the Python interpreter that has the existing plugin, with the same versions of Kinto
    and gunicorn; None if it cannot be installed."""
    if os.environ.get(REUSE):
        return Path(os.environ[REUSE])
    same = [f"{name}=={version(name)}" for name in ("kinto", "gunicorn", "SQLAlchemy")]
    return make_virtualenv("existing", *REQUIREMENTS, *same)


def _tables(made: Table | Iterator[Table]) -> Iterator[Table]:
    return iter([made]) if isinstance(made, Table) else made


def _row(name: str) -> str:
    # With ``choices``, argparse would refuse to be given no names at all.
    if name not in ROWS:
        raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(ROWS)}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks.")
    parser.add_argument("--quick", action="store_true", help="use smaller sizes: two minutes")
    known = f"run only these rows: {', '.join(ROWS)}"
    only = {"type": _row, "metavar": "NAME", "default": [], "help": known}
    parser.add_argument("names", nargs="*", **only)
    parser.add_argument("--only", nargs="+", **only)
    parser.add_argument("--plots", type=Path, help="write the plots to this folder")
    options = parser.parse_args()
    existing = find_existing()
    cpus, memory = psutil.cpu_count(), psutil.virtual_memory().total >> 30
    print(
        f"{date.today()}, {cpus} cores, {memory} GiB; Kinto {version('kinto')}, gunicorn gthread,"
    )
    print(f"PostgreSQL (fsync on); {EXISTING}: {'8.0.0' if existing else 'not installed'}\n")
    started = time.monotonic()
    tables: dict[str, list[Table]] = {}
    failed = []
    with ExitStack() as stack:
        parent = os.environ.get("BENCHMARK_FOLDER")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
        environment = Environment(stack, folder, existing, options.quick)
        for name in [*options.names, *options.only] or ROWS:
            for run in ROWS[name]:
                try:
                    for table in _tables(run(environment)):
                        tables.setdefault(name, []).append(table)
                        print(table, flush=True)
                except Exception:
                    traceback.print_exc()
                    failed.append(f"{run.__module__}.{run.__name__}")
        environment.stop()
    if options.plots:
        plot(tables, options.plots)
    print(summary(table for each in tables.values() for table in each))
    if options.quick:
        print("With sizes this small, the numbers say little.")
    print(f"{time.monotonic() - started:.0f} seconds")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
