"""The house: imports go downward only, and no room is a drawer."""

import ast
from pathlib import Path

import kinto_attachment

PACKAGE = Path(kinto_attachment.__file__).parent

# From the bottom: a module may import from its own floor and those below.
FLOORS = [
    {"errors", "media_type", "ranges", "blob", "keys", "finding"},
    {"setting_types", "policy"},
    {"setting_table"},
    {"settings"},
    {"storage"},
    {"images", "remote", "unsplash"},
    {"rows", "restart", "transfer"},
    {"links", "releases", "claims", "pending", "unclaimed", "variants"},
    {"attached", "legacy", "kept"},
    {"files", "migrations", "pictures", "host_lock"},
    {"media", "imaging", "library"},
    {"verify"},
    {"transaction"},
    {
        "body",
        "forms",
        "guard",
        "locations",
        "record_model",
        "records",
        "listeners",
        "retry",
        "storing",
        "content",
        "owner",
    },
    {"heartbeat", "serving", "maintenance"},
    {"shared_cache"},
    {"views"},
    {"", "cli"},
]


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(PACKAGE).parts[0].removesuffix(".py").replace("__init__", "")


def floor_of(room: str) -> int:
    return next(index for index, rooms in enumerate(FLOORS) if room in rooms)


def imported(path: Path):
    """Rooms of this package that a module imports from."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        inside = node.level == depth
        if node.module and inside:
            yield node.module.partition(".")[0]
        elif inside:
            yield from (name.name for name in node.names)


def test_every_module_has_a_floor():
    for _, room in modules():
        assert floor_of(room) >= 0


def test_imports_go_downward():
    for path, room in modules():
        for other in imported(path):
            assert floor_of(other) <= floor_of(room), f"{path} imports {other}"


def test_core_knows_no_requests():
    for path, room in modules():
        if floor_of(room) <= floor_of("storage"):
            assert "pyramid.request" not in path.read_text(), path
            assert "import kinto" not in path.read_text().replace("import kinto_attachment", "")


def test_modules_fit():
    for path, _ in modules():
        lines = len(path.read_text().splitlines())
        assert lines <= 330, f"{path} has {lines} lines"
