"""The ``kinto-attachment`` command, in this process and in one of its own."""

import io
import os
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

from kinto_attachment.cli import main
from tests.support.servers.wsgi import BIN


def shell(*arguments, **env: str) -> tuple[int, list[str], str]:
    """Run the command; return its exit status, its output lines and its messages."""
    printed, said = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, env), redirect_stdout(printed), redirect_stderr(said):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as stopped:
            status = stopped.code
    assert "Traceback" not in said.getvalue(), said.getvalue()
    return status, printed.getvalue().splitlines(), said.getvalue()


def interrupted(*arguments) -> int:
    """Run the command in a process, and interrupt it after its first line; return how many lines
    it printed."""
    with subprocess.Popen(
        [BIN / "kinto-attachment", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            printed, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()  # or the end of the block would wait for it
            raise
    assert (process.returncode, said) == (2, "Interrupted; run it again to go on.\n")
    return 1 + len(printed.splitlines())


def leave_orphan(record, settings) -> Path:
    folder = Path(settings["kinto.attachment.base_path"]) / record.collection.bucket / "fonts"
    path = folder / f"{uuid4()}.txt"
    path.write_bytes(b"orphan")
    return path
