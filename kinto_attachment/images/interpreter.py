"""Which Python the worker runs on. Under uWSGI, and in other programs that embed Python,
``sys.executable`` is that program."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImagingMissing

_PYTHON = re.compile(r"(python|pypy)[0-9.]*(\.exe)?")
# What a worker needs to know of the environment, and no password of a database.
_PASSED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "PYTHONHOME", "TMPDIR")


def find_interpreter() -> str:
    """The path of a Python of this version and, if it can be, of this environment.

    :raises ImagingMissing: there is none.
    """
    for path in _candidates():
        if path and os.access(path, os.X_OK) and _PYTHON.fullmatch(Path(path).name):
            return path
    raise ImagingMissing("No Python interpreter was found that could resize images.")


def _candidates() -> Iterator[str | None]:
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python")
    yield sys.executable
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        yield from (os.path.join(prefix, "bin", name) for name in names)
    yield shutil.which(names[0])


def environment() -> dict[str, str]:
    """For the worker: the modules of this process, one thread, and memory that is given back."""
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "MALLOC_ARENA_MAX": "2",
        "VIPS_CONCURRENCY": "1",
        "VIPS_WARNING": "0",
    }
