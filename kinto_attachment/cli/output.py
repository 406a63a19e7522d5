"""What the commands print: findings in columns or as JSON, a summary, and a bar of progress."""

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any

from tqdm import tqdm

from ..finding import Finding, Progress
from .parser import INI

WIDEST = 60
"""Characters to which columns are padded; longer cells push the others to the right."""

REDRAW_SECONDS = 0.1

NOTHING = {
    "fsck": "no problems",
    "gc": "nothing to delete",
    "migrate": "nothing to copy",
    "adopt-storage": "the storage is marked already",
    "rebase": "nothing to rewrite",
    "verify": "nothing to verify",
    "import": "nothing to adopt",
    "cors": "no rules",
    "library": "nothing to change",
    "upload": "no files",
    "download": "no files",
}
"""The summary of a command that found and did nothing."""

PLURALS = {
    "conflict": "conflicts",
    "foreign group": "foreign groups",
    "foreign principal": "foreign principals",
    "group member": "group members",
    "link without record": "links without a record",
    "missing marker": "missing markers",
    "missing object": "missing objects",
    "orphan object": "orphan objects",
    "record without link": "records without a link",
    "rule": "rules",
    "unknown object": "unknown objects",
    "unreadable object": "unreadable objects",
    "unreadable row": "unreadable rows",
    "wrong hash": "wrong hashes",
    "wrong location": "wrong locations",
    "wrong size": "wrong sizes",
}
"""Of the kinds that are nouns; the others, such as ``copied``, stay the same."""

_OWN_COMMAND = re.compile(
    r"\bkinto-attachment (library init|fsck|gc|verify|migrate|adopt-storage|rebase|import|cors)\b"
    r"(?! --ini)"  # it names one already
)


class Output:
    """What one command prints.

    :param options: the parsed arguments.
    :ivar progress: a bar on a terminal; it shows nothing elsewhere, with ``--json`` or ``--quiet``.
    """

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._counts: dict[str, int] = {}
        self._problems: set[str] = set()
        self._widths: list[int] = []
        on_terminal = sys.stderr.isatty() and not (options.json or options.quiet)
        self.progress = Bar(options.command) if on_terminal else Progress()

    def add(self, finding: Finding) -> None:
        """Print a finding, unless ``--quiet`` leaves it out."""
        if self._options.dry_run:
            finding = finding.planned()
        line = self._json(finding) if self._options.json else self._text(finding)
        if finding.is_problem or not self._options.quiet:
            with tqdm.external_write_mode(file=sys.stdout):  # no bar is drawn meanwhile
                print(line, flush=True)
        self._counts[finding.kind] = self._counts.get(finding.kind, 0) + 1
        if finding.is_problem:
            self._problems.add(finding.kind)
        if isinstance(self.progress, Bar):
            self.progress.tell(self._summary())

    @property
    def has_problems(self) -> bool:
        """Whether a problem was among the findings."""
        return bool(self._problems)

    def end(self) -> None:
        """Print the summary. With ``--quiet`` there is one only if there are problems."""
        options = self._options
        if options.json or (options.quiet and not self.has_problems):
            return
        self._tell(self._summary() or NOTHING[options.command])

    def end_early(self) -> None:
        """Print what was done before the command failed, as :meth:`end` does."""
        options = self._options
        if self._counts and not (options.json or (options.quiet and not self.has_problems)):
            self._tell(f"{self._summary()}, then it failed:")

    def _tell(self, summary: str) -> None:
        print(f"{'Dry run: ' * self._options.dry_run}{summary}", file=sys.stderr)

    def _summary(self) -> str:
        """Return how many findings of each kind there are: what went well first."""
        kinds = sorted(self._counts, key=lambda kind: (kind in self._problems, kind))
        return ", ".join(counted(kind, self._counts[kind]) for kind in kinds)

    def _json(self, finding: Finding) -> str:
        found = finding.to_json()
        if finding.remedy:
            found["remedy"] = with_ini(finding.remedy, self._options)
        if self._options.dry_run:
            found["dry_run"] = True
        return json.dumps(found)

    def _text(self, finding: Finding) -> str:
        """Return the finding in columns. They are as wide as the widest cell so far, so that lines
        of the same kind are aligned although the next lines are unknown."""
        remedy = with_ini(finding.remedy, self._options)
        cells = [
            printable(cell)
            for cell in (finding.kind, finding.key, finding.record, finding.detail, remedy)
        ]
        widths = self._widths or [0] * len(cells)
        self._widths = [
            max(width, min(len(cell), WIDEST)) for width, cell in zip(widths, cells, strict=True)
        ]
        padded = (
            cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True) if width
        )
        return "  ".join(padded).rstrip()


def counted(kind: str, count: int) -> str:
    """Return how many findings of a kind there are.

    >>> counted("orphan object", 2), counted("uploaded", 17), counted("would delete", 3)
    ('2 orphan objects', '17 uploaded', 'would delete 3')
    """
    if kind.startswith("would ") and not kind.startswith("would be "):
        return f"{kind} {count}"
    return f"{count} {PLURALS.get(kind, kind) if count != 1 else kind}"


def with_ini(text: str, options: argparse.Namespace) -> str:
    """Return a sentence whose commands work as they stand: with the ini file of this run, unless
    that is the one they take anyway."""
    if options.ini in (None, INI):
        return text
    own = f" --ini {shlex.quote(options.ini)}"
    return _OWN_COMMAND.sub(lambda found: found[0] + own, text)


def printable(text: str) -> str:
    """Return a text without characters that could move the cursor of a terminal, or break a line.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class Bar(Progress):
    """A bar of progress on the terminal.

    It counts bytes as soon as the bytes of all expected files are known, and files until then.

    :param command: what stands before it.
    """

    is_shown = True

    def __init__(self, command: str):
        self._counts = ""
        self._command = command
        self._lock = RLock()
        self._reset()
        self._bar = _Meter(self._meter, desc=command)

    def _reset(self) -> None:
        self._expected = self._sized = self._files = 0
        self._expected_bytes = self._bytes = 0
        self._drawn = 0.0

    def begin(self, what: str) -> None:
        with self._lock:
            self._reset()
            self._bar.reset()
            self._bar.set_description_str(f"{self._command} ({what})", refresh=False)

    def expect(self, files: int, size: int | None = None) -> None:
        with self._lock:
            self._expected += files
        if size is not None:
            self.expect_bytes(files, size)
        self._draw()

    def expect_bytes(self, files: int, size: int) -> None:
        with self._lock:
            self._sized += files
            self._expected_bytes += size

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self._bytes += count
        self._draw()

    def add_files(self, files: int = 1, size: int = 0, moved: int = 0) -> None:
        with self._lock:
            self._files += files
            self._expected_bytes += moved - size
        self._draw()

    def tell(self, counts: str) -> None:
        """Show how many findings of each kind there are."""
        self._counts = counts
        self._draw()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._bar.refresh()

    def _meter(self) -> dict[str, Any]:
        """Return what the bar shows now, as arguments of ``tqdm.format_meter``."""
        with self._lock:
            files = f"{self._files}/{self._expected}" if self._expected else f"{self._files}"
            if self._expected_bytes > 0 and self._sized >= self._expected:
                shown = {"n": self._bytes, "total": self._expected_bytes, "unit": "B"}
                shown |= {"unit_scale": True, "unit_divisor": 1000}
                rest = [f"{files} files"]
            else:
                unit = " file" if self._files == 1 else " files"
                shown = {"n": self._files, "total": self._expected or None, "unit": unit}
                shown |= {"unit_scale": False}
                rest = [f"{tqdm.format_sizeof(self._bytes, 'B')}"] if self._bytes else []
            return {**shown, "postfix": ", ".join([*rest, self._counts]).strip(", ") or None}


class _Meter(tqdm):
    """A bar whose numbers another object keeps."""

    def __init__(self, meter: Any, **options: Any):
        self._read = meter
        super().__init__(leave=False, dynamic_ncols=True, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        shown = super().format_dict
        return {**shown, "rate": None, "initial": 0, **self._read()}


@contextmanager
def showing(output: Output) -> Iterator[Progress]:
    """Yield the progress of a command, and remove its bar in the end. Log messages do not break
    the bar."""
    if not isinstance(output.progress, Bar):
        yield output.progress
        return
    from tqdm.contrib.logging import logging_redirect_tqdm

    try:
        with logging_redirect_tqdm():
            yield output.progress
    finally:
        output.progress.close()
