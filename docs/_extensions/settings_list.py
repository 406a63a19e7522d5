"""The directive ``settings-list``: all settings, from the table that the server itself reads.

It writes a ``confval`` for each, so that pages can refer to one: ``:confval:`max_size```.
"""

from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kinto_attachment.settings.setting import Setting
from kinto_attachment.settings.table import TOPICS


class SettingsList(SphinxDirective):
    """Write a section for each topic."""

    def run(self) -> list[nodes.Node]:
        text = "\n".join(line for topic in TOPICS for line in _topic(topic))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def _topic(title: str) -> Iterator[str]:
    yield from (title, "-" * len(title), "")
    for setting in TOPICS[title]:
        yield from _setting(setting)


def _setting(setting: Setting) -> Iterator[str]:
    unit = f", in {setting.parse.unit}" if setting.parse.unit else ""
    facts = {
        "Type": f"{setting.parse.type}{unit}",
        "Default": f"``{setting.default}``" if setting.default else "empty",
        "Scope": "server, bucket or collection" if setting.per_resource else "server",
        "Older name": f"``{setting.alias}``" if setting.alias else "",
    }
    yield from (f".. confval:: {setting.name}", "", f"   {setting.help}", "")
    yield f"   {' '.join(f'*{name}:* {fact}.' for name, fact in facts.items() if fact)}"
    yield ""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-list", SettingsList)
    return {"parallel_read_safe": True}
