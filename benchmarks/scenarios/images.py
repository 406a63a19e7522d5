"""Resized images: what they cost, compared with Pillow and thumbor."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from multiprocessing import get_context
from statistics import median
from typing import Any

import requests
from PIL import Image

from tests.support import images as pictures

from ..harness.competitors import ImageServer
from ..harness.environment import OURS, Environment
from ..harness.image_servers import CACHED, DRAFT, MANY, PILLOW, THUMBORS, Measured, Program, start
from ..harness.load import AT_ONCE, CONNECTIONS, ask_at_once, ask_often
from ..report import Cell, Table, Target, ratio

LARGE, SMALL = 1920, 320
COLD = {
    f"{LARGE} px": 1.5,
    f"{SMALL} px ({LARGE} px made before)": 3,
    f"{SMALL} px": 1,
}
"""First requests, and how many times our CPU time the alternatives should need at least."""

Rows = dict[str, dict[str, list[Measured]]]
"""Measurements by the request and the program."""


def run(environment: Environment) -> Iterator[Table]:
    """Measure all programs with one photo, and ours with hostile images."""
    runs = environment.pick(9, 1)
    width, height = environment.pick((6000, 4000), (3000, 2000))
    photo = pictures.encode(pictures.photo(width, height), "JPEG", quality=90)
    of = f"of a JPEG of {width} x {height} pixels, {len(photo) / 1e6:.1f} MB"
    with ExitStack() as stack:
        client = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        client.submit(os.getpid).result()
        programs = start(stack, environment.make_folder())
        alone = {
            name: programs[name] for name in (OURS, THUMBORS, PILLOW, DRAFT) if name in programs
        }
        web = {
            name: each for name, each in programs.items() if isinstance(each.resizer, ImageServer)
        }
        many = web.pop(MANY)
        yield from cold(alone, photo, runs, of)
        yield from warm(web, photo, runs, environment.pick(1, 0.2), client)
        crowded = {name: web[name] for name in (OURS, THUMBORS) if name in web}
        yield at_once({**crowded, MANY: many}, photo, client)
        yield hostile(web[OURS])


def cold(programs: dict[str, Program], photo: bytes, runs: int, of: str) -> Iterator[Table]:
    """Measure first requests: for a large size, for a small size of the same image, and for a small
    size of another image.

    :param of: a description of the photo, for the title.
    """
    measured: Rows = {what: {name: [] for name in programs} for what in COLD}

    def get(what: str, name: str, image: str, width: int) -> None:
        program = programs[name]
        cost, (status, body) = program.measure(program.resizer.get, image, width)
        assert (status, Image.open(BytesIO(body)).width) == (200, width), (name, status)
        measured[what][name].append(cost)

    for _ in range(runs + 1):
        for name, program in programs.items():
            image, other = (program.resizer.add(*new(photo)) for _ in range(2))
            images = (image, LARGE), (image, SMALL), (other, SMALL)
            for what, (each, width) in zip(COLD, images, strict=True):
                get(what, name, each, width)
    for what, rows in measured.items():
        # The first request loads modules, which is not part of the cost.
        lines = {name: _cells(costs[1:]) for name, costs in rows.items()}
        for cells in lines.values():
            cells["x ours"] = ratio(cells["CPU ms"], lines[OURS]["CPU ms"])
        targets = [
            Target(f"{what}: CPU of {name} / ours", lines[name]["x ours"], COLD[what], True)
            for name in (THUMBORS, DRAFT)
            if name in lines
        ]
        columns = ["CPU ms", "x ours", "ms", "MiB", "worker"]
        title = f"{what}, for the first time, {of} ({runs} each)"
        yield Table(title, columns, lines, targets)


def warm(
    programs: dict[str, Program], photo: bytes, runs: int, seconds: float, client: Executor
) -> Iterator[Table]:
    """Measure repeated requests for the same image.

    :param seconds: for each program and run.
    :param client: a process of its own for the client.
    """

    def ask(web: ImageServer, image: str, width: int) -> int:
        return client.submit(ask_often, web.port, web.path(image, width), seconds).result()

    images = {name: program.resizer.add(*new(photo)) for name, program in programs.items()}
    for width in (LARGE, SMALL):
        measured: dict[str, list[Measured]] = {name: [] for name in programs}
        for name, program in programs.items():
            program.resizer.get(images[name], width)
        for _ in range(runs):
            for name, program in programs.items():
                cost, answers = program.measure(ask, program.resizer, images[name], width)
                rate = answers / cost["seconds"]
                measured[name].append({**cost, "rate": rate, "per cpu": answers / cost["cpu"]})
        lines = {name: _cells(costs) for name, costs in measured.items()}
        others = lines.get(THUMBORS, {})
        for cells in lines.values():
            cells["x thumbor"] = ratio(cells["requests/s"], others.get("requests/s"))
            cells["CPU x"] = ratio(cells["a CPU s"], others.get("a CPU s"))
        targets = [
            Target(f"{width} px again, {name}: requests/s / thumbor", each["x thumbor"], 1.5, True)
            for name, each in lines.items()
            if name in (OURS, CACHED)
        ]
        columns = ["requests/s", "x thumbor", "a CPU s", "CPU x", "MiB", "worker"]
        title = f"{width} px again and again, {CONNECTIONS} connections (medians of {runs})"
        yield Table(title, columns, lines, targets)


def at_once(programs: dict[str, Program], photo: bytes, client: Executor) -> Table:
    """Send many first requests for the same image at once, and count how many images are made."""

    def ask(web: ImageServer, image: str) -> tuple[Counter, int]:
        return client.submit(ask_at_once, web.port, web.path(image, LARGE)).result()

    lines: dict[str, dict[str, Cell]] = {}
    for name, program in programs.items():
        for _ in range(4):  # start the workers, which end when they are idle
            program.resizer.get(program.resizer.add(*new(photo)), SMALL)
        image = program.resizer.add(*new(photo))
        before = program.written()
        cost, (statuses, size) = program.measure(ask, program.resizer, image)
        lines[name] = {
            "answers": statuses[200],
            "made": round((program.written() - before) / size),
            "CPU s": cost["cpu"],
            "seconds": cost["seconds"],
        }
    targets = [
        Target(f"{AT_ONCE} at once: images made by {name}", lines[name]["made"], 1)
        for name in (OURS, MANY)
    ]
    title = f"{AT_ONCE} requests at once for a new {LARGE} px"
    return Table(title, ["answers", "made", "CPU s", "seconds"], lines, targets)


def hostile(program: Program) -> Table:
    """Add each hostile image, and request it."""
    costs, refused = [], 0
    for kind, (make, _) in pictures.HOSTILE.items():
        cost, image = program.measure(_add, program.resizer, f"{kind}.{_extension(kind)}", make())
        costs.append(cost)
        if image is not None:
            cost, (status, _) = program.measure(program.resizer.get, image, 100)
            costs.append(cost)
        refused += image is None or 400 <= status < 500
    highest = {key: max(cost[key] for cost in costs) for key in costs[0]}
    cells: dict[str, Cell] = {
        "refused": refused,
        "slowest s": highest["seconds"],
        "MiB": highest["server"],
        "worker": highest["worker"],
    }
    count = len(pictures.HOSTILE)
    targets = [
        Target("hostile images: refused", refused, count, True),
        Target("hostile images: slowest, seconds", highest["seconds"], 2),
        Target("hostile images: MiB of the server", highest["server"], 300),
    ]
    return Table(f"{count} hostile images, 100 px of each", list(cells), {OURS: cells}, targets)


def new(photo: bytes) -> tuple[str, bytes]:
    """Return a new name, and the photo with a new comment, so that no cache can have it."""
    comment = os.urandom(16).hex()
    return f"{comment}.jpg", pictures.with_segments(photo, 0xFE, comment.encode())


def _cells(costs: list[Measured]) -> dict[str, Cell]:
    """Return the medians in the units of the tables."""
    cost = {key: median(each[key] for each in costs) for key in costs[0]}
    return {
        "CPU ms": 1000 * cost["cpu"],
        "ms": 1000 * cost["seconds"],
        "requests/s": cost.get("rate"),
        "a CPU s": cost.get("per cpu"),
        "MiB": cost["server"],
        "worker": cost["worker"] or None,
    }


def _add(resizer: Any, name: str, content: bytes) -> str | None:
    """Add an image; return its name, or None if the server refuses it."""
    try:
        return resizer.add(name, content)
    except requests.HTTPError as error:
        if error.response.status_code != 400:
            raise
        return None


def _extension(kind: str) -> str:
    format = kind.partition("-")[0]
    return {"jpeg": "jpg", "apng": "png"}.get(format, format)
