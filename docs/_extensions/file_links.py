"""Links to files of the clone: a warning for each whose file does not exist.

The role ``:file:`config/nginx.conf``` names a file by its path from the root of the clone.
"""

from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).resolve().parents[2]

logger = logging.getLogger(__name__)


class ClonedFile(SphinxRole):
    """The path of a file or folder of the clone."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        node = nodes.literal(self.text, self.text, classes=["file"])
        self.set_source_info(node)
        _check(ROOT / self.text, self.text, node)
        return [node], []


def check_links(app: Sphinx, document: nodes.document) -> None:
    """Check the relative links of a page. Sphinx itself checks ``:doc:`` and ``:ref:``."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for node in document.findall(nodes.reference):
        link = node.get("refuri", "").partition("#")[0]
        if link and ":" not in link and not node.get("internal"):
            _check(folder / link, link, node)


def _check(path: Path, link: str, node: nodes.Node) -> None:
    if not path.exists():
        logger.warning("no such file in the clone: %s", link, location=node)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("file", ClonedFile(), override=True)
    app.connect("doctree-read", check_links)
    return {"parallel_read_safe": True}
