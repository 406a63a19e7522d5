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
    scope = "server, bucket or collection" if setting.per_resource else "server"
    yield f".. confval:: {setting.name}"
    yield f"   :type: {setting.parse.type}{unit}"
    yield f"   :default: {f'``{setting.default}``' if setting.default else 'empty'}"
    yield from ("", f"   {setting.help}", "", f"   :Can be set for: {scope}")
    if setting.alias:
        yield f"   :Older name: ``{setting.alias}``"
    yield ""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-list", SettingsList)
    return {"parallel_read_safe": True}
