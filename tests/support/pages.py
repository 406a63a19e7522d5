"""The README and the pages of the documentation, and the examples in them."""

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

# Those of the benchmarks and the changelog have no examples.
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]

SERVER = "http://127.0.0.1:8888"
"""The server to which all examples talk."""


class Example(NamedTuple):
    """A code block of a page.

    :param place: the page and the line, for the id of a test.
    :param code: the block, without its indent.
    :param classes: those that its option ``:class:`` names.
    """

    place: str
    language: str
    code: str
    classes: str = ""

    @property
    def is_output(self) -> bool:
        """Whether it shows what the example before it prints."""
        return self.classes == "output"


def examples_of(page: Path) -> list[Example]:
    found, lines = [], page.read_text().splitlines()
    for number, line in enumerate(lines):
        match = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        if not match:
            continue
        indent, block, classes = len(match[1]), [], ""
        for code in lines[number + 1 :]:
            if code.strip() and len(code) - len(code.lstrip()) <= indent:
                break
            if re.match(r" +:class: ", code):
                classes = code.split()[1]
            else:
                block.append(code)
        width = min(len(code) - len(code.lstrip()) for code in block if code.strip())
        text = "\n".join(code[width:] for code in block).strip() + "\n"
        found.append(Example(f"{page.stem}:{number + 1}", match[2], text, classes))
    return found


def examples(*languages: str) -> list[Example]:
    """The examples of all pages in some languages."""
    return [each for page in PAGES for each in examples_of(page) if each.language in languages]


def commands() -> list[tuple[str, str]]:
    """The lines of the shell examples, each with its place. A line begins with variables of the
    environment and the name of the program, without the folder of the program."""
    found = []
    for each in examples("shell"):
        for line in each.code.replace("\\\n", " ").splitlines():
            found.append((each.place, re.sub(r"(^| )\S*/bin/", r"\1", line.partition("  #")[0])))
    return found


def program_of(command: str) -> str:
    return next(word for word in command.split() if not re.match(r"[A-Z_]+=", word))


def normalized(text: str, server: str) -> object:
    """What an example prints, without what differs each time: ids, times, and the server.

    Locations may be relative or not.
    """
    text = text.replace(server, SERVER).replace(f"{SERVER}/files/", "")
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "(id)", text)
    text = re.sub(r'"last_modified": ?\d+', '"last_modified": 0', text).strip()
    try:
        return json.loads(text)
    except ValueError:
        return text
