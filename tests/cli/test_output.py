"""What the commands print: columns, counts, JSON, and a bar on terminals."""

import ast
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

import kinto_attachment
from kinto_attachment.cli.output import NOTHING, PLURALS, Output
from kinto_attachment.cli.parser import parse
from kinto_attachment.cli.server_commands import COMMANDS
from kinto_attachment.finding import PLANNED, Finding
from kinto_attachment.legacy.adoption import ADOPTED, LEFT_BEHIND
from kinto_attachment.legacy.kept_files import KEPT

PACKAGE = Path(kinto_attachment.__file__).parent

NEITHER = {
    *("unchanged", "skipped", "verified"),
    *("missing", "changed", "damaged", "unavailable", "failed"),
    *("foreign storage", "foreign metadata", "wrong bytes"),
}
"""Kinds that say nothing about what a dry run leaves out, and that have no plural."""


def printed(arguments: list[str], *findings: Finding) -> tuple[list[str], str]:
    """Return what a command prints for some findings, and its summary."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        output = Output(parse(arguments))
        for finding in findings:
            output.add(finding)
        output.end()
    return out.getvalue().splitlines(), err.getvalue()


def on_terminal(command: list[str], columns: int) -> list[str]:
    """Run a command on a pseudo terminal; return what it draws, one line or one bar each."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=writer) as process:
        os.close(writer)
        drawn = b""
        with suppress(OSError):  # EIO marks its end
            while chunk := os.read(reader, 65536):
                drawn += chunk
        os.close(reader)
        assert process.wait(60) == 0
    return drawn.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")


class TestLines:
    UPLOADED = Finding("uploaded", "a.png", "/buckets/b/collections/c/records/1")
    REFUSED = Finding("refused", "dir/b.exe", "", "400 no", "rename it")

    def test_columns(self):
        lines, _ = printed(["gc"], self.REFUSED, self.UPLOADED, self.REFUSED)
        assert lines[1].startswith("uploaded  a.png      /buckets/")
        assert lines[2].startswith("refused   dir/b.exe  ")
        assert lines[2].endswith("  400 no  rename it")

    def test_counts(self):
        """What went well comes first."""
        findings = [self.REFUSED, *[self.UPLOADED] * 17]
        assert printed(["gc"], *findings)[1] == "17 uploaded, 1 refused\n"
        assert printed(["gc", "--dry-run"], *findings)[1] == (
            "Dry run: would upload 17, 1 would be refused\n"
        )

    def test_quiet(self):
        lines, summary = printed(["gc", "--quiet"], self.UPLOADED, self.REFUSED)
        assert ([line[:7] for line in lines], summary) == (["refused"], "1 uploaded, 1 refused\n")
        assert printed(["gc", "--quiet"], self.UPLOADED) == ([], "")

    def test_dry_run_in_json(self):
        lines, summary = printed(["gc", "--dry-run", "--json"], self.UPLOADED)
        assert json.loads(lines[0]) == {
            "kind": "would upload",
            "key": "a.png",
            "record": self.UPLOADED.record,
            "dry_run": True,
        }
        assert summary == ""

    def test_commands_in_remedies_work_as_they_stand(self):
        finding = Finding("link without record", "k", remedy="kinto-attachment gc")
        (line,), _ = printed(["fsck", "--ini", "my server.ini"], finding)
        assert line.endswith("  kinto-attachment gc --ini 'my server.ini'")
        (line,), _ = printed(["fsck", "--ini", "config/kinto.ini"], finding)
        assert line.endswith("  kinto-attachment gc")

    def test_control_characters_do_not_reach_the_terminal(self):
        (line,), _ = printed(["gc"], Finding("deleted", "a\x1b[31m\nb"))
        assert line == "deleted  a\\x1b[31m\\nb"


def kinds() -> set[str]:
    """The kinds of all findings in the code, as far as they are literals."""
    found = {ADOPTED, LEFT_BEHIND, KEPT}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = ("Finding", "Foreign", "TransferFailed", "_finding")
            name = getattr(node, "func", None)
            name = getattr(name, "id", None) or getattr(name, "attr", None)
            if isinstance(node, ast.Call) and name in names and node.args:
                kind = getattr(node.args[0], "value", None)
                found |= {kind} if isinstance(kind, str) else set()
    return found


def test_every_kind_has_words():
    """A new kind says what a dry run calls it, or that it says nothing of the sort."""
    assert len(kinds()) > 30
    unknown = kinds() - PLANNED.keys() - PLURALS.keys() - NEITHER
    assert not unknown
    assert {"upload", "download", *COMMANDS} == set(NOTHING)


class TestBar:
    @pytest.mark.parametrize("columns", [20, 200])
    def test_fits(self, ini, record, columns):
        for number in range(5):
            record.collection.record().upload(b"x" * number * 100_000)
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--deep", "--ini"]
        drawn = on_terminal([*command, str(ini)], columns)
        assert max(map(len, drawn)) < columns
        assert not any("\x1b" in line for line in drawn)
        assert drawn[-2:] == ["no problems", ""]
        if columns > 20:
            (bar, *_) = [line for line in drawn if "B/s" in line]
            assert bar.startswith("fsck (bytes): ")
            assert "/1.00M [" in bar and "/6 files]" in bar and "%" in bar

    @pytest.mark.parametrize("option", ["--quiet", "--json"])
    def test_is_not_shown(self, ini, record, option):
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--deep", "--ini"]
        assert on_terminal([*command, str(ini), option], 80) == [""]

    def test_needs_a_terminal(self, ini, record):
        record.site.storage.delete(record.collection.links)
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--ini", str(ini)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stderr == "1 missing object\n"
        assert "\x1b" not in done.stdout and "\r" not in done.stdout
