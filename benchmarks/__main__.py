"""Every row of numbers, in one run.

::

    python -m benchmarks [--quick] [--only NAME ...] [--plots FOLDER]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.servers.existing import REQUIREMENTS, REUSE

from . import deletion, download, media, scale, slow, small, upload
from .alternatives import environment
from .plot import plot_images, plot_upload
from .report import Table, summary
from .stage import EXISTING, ROOT, Stage

ROWS: dict[str, list[Callable[[Stage], Table]]] = {
    "upload": [upload.run, upload.run_s3],
    "small": [small.run, small.run_parallel],
    "scale": [scale.run],
    "delete": [deletion.run],
    "slow": [slow.run],
    "download": [download.run, download.run_s3],
    "media": [media.run, media.run_s3],
}


def find_existing() -> Path | None:
    """The python that has the existing plugin, with the same Kinto and the same server."""
    if os.environ.get(REUSE):
        return Path(os.environ[REUSE])
    same = [f"{name}=={version(name)}" for name in ("kinto", "gunicorn", "SQLAlchemy")]
    return environment("existing", *REQUIREMENTS, *same)


def run_images(quick: bool) -> list[str]:
    """Print its tables, which are its own; the lines of them."""
    command = [sys.executable, "-m", "benchmarks.images", *(["--quick"] if quick else [])]
    lines = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if process.returncode:
        raise SystemExit(process.returncode)
    print()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="All numbers")
    parser.add_argument("--quick", action="store_true", help="at a smaller size: two minutes")
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "images"], help="some of the rows")
    parser.add_argument("--plots", type=Path, help="write the plots there")
    options = parser.parse_args()
    wanted = options.only or [*ROWS, "images"]
    existing = find_existing()
    cpus, memory = psutil.cpu_count(), psutil.virtual_memory().total >> 30
    print(
        f"{date.today()}, {cpus} cores, {memory} GiB; Kinto {version('kinto')}, gunicorn gthread,"
    )
    print(f"PostgreSQL (fsync on); {EXISTING}: {'8.0.0' if existing else 'not installed'}\n")
    started = time.monotonic()
    tables, failed = [], []
    with ExitStack() as stack:
        parent = os.environ.get("BENCHMARK_FOLDER")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))
        stage = Stage(stack, folder, existing, options.quick)
        for run in (run for name in wanted if name in ROWS for run in ROWS[name]):
            try:
                table = run(stage)
            except Exception:
                traceback.print_exc()
                failed.append(f"{run.__module__}.{run.__name__}")
                continue
            tables.append(table)
            print(table, flush=True)
            if run is upload.run and options.plots:
                plot_upload(table, options.plots / "upload.svg")
    if "images" in wanted:
        images = run_images(options.quick)
        if options.plots:
            plot_images(images, options.plots / "images.svg")
    if tables:
        print(summary(tables))
    print(f"{time.monotonic() - started:.0f} seconds")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
