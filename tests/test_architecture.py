"""The layout: packages import downward only, and no room becomes a drawer."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kinto_attachment

PACKAGE = Path(kinto_attachment.__file__).parent

# A package imports from the lines above its own. Packages on one line do not import each other.
# A new module needs no entry, a new package needs one word.
LAYERS = """
errors finding metrics
files
settings
storage remote rows
transactions
images legacy
plugin
http
attachments
library
media
uploads
maintenance transfer
cli __init__
""".strip().splitlines()
ORDER = {name: number for number, layer in enumerate(LAYERS) for name in layer.split()}

# They work without a server, and without Kinto.
PURE = ("files", "settings", "storage", "remote", "images/formats", "images/worker")


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports, ours as kinto_attachment.package..."""
    here = ("kinto_attachment", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            base = [*above, *([node.module] if node.module else [])]
            yield from (".".join([*base, name.name]) for name in node.names)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_go_downward():
    for path in modules():
        own = package_of(path)
        for name in imported(path):
            other = name.removeprefix("kinto_attachment.").partition(".")[0]
            if name.startswith("kinto_attachment.") and other in ORDER and other != own:
                assert ORDER[other] < ORDER[own], f"{path} imports {name}"


def test_every_package_has_a_layer():
    assert {package_of(path) for path in modules()} <= set(ORDER)


def test_the_ground_knows_neither_kinto_nor_requests():
    for path in modules():
        if str(path.relative_to(PACKAGE)).startswith(PURE):
            foreign = [n for n in imported(path) if n.startswith(("kinto.", "pyramid.request"))]
            assert not foreign, f"{path} imports {foreign}"


def test_modules_and_folders_fit():
    for folder in {path.parent for path in modules()}:
        names = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(names) <= 11, f"{folder} has {len(names)} modules"
    for path in modules():
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path} has {lines} lines"


def test_tests_fit():
    for path in Path(__file__).parent.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 600, f"{path} has {lines} lines"


def test_jobs_import_no_views():
    """Services read Kinto's CORS settings when they are imported: not before Kinto is set up."""
    program = (
        "import sys, kinto_attachment.maintenance.gc, kinto_attachment.maintenance.fsck;"
        "print([name for name in sys.modules if 'kinto_attachment' in name and 'views' in name])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]"
