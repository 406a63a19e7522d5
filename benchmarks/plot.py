"""Bar charts as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .harness.environment import EXISTING, OURS
from .report import Table

WIDTH, LABELS, BAR, GAP = 760, 210, 20, 8
NUMBERS = 80  # to the right of the longest bar
COLORS = {
    OURS: "#1f6f54",
    "with cache_seconds": "#5fa58b",
    "memory": "#5fa58b",
    EXISTING: "#b5542c",
}
OTHERS = "#8a9199"
# Titles of panels, and the columns of the table that they show.
UPLOAD = [
    ("MB/s (more is better)", "MB/s"),
    ("CPU seconds of the server (less is better)", "CPU s"),
    ("Peak memory, MiB over idle (less is better)", "MiB over idle"),
]
IMAGES = [
    ("CPU ms (less is better)", "CPU ms"),
    ("requests a second (more is better)", "requests/s"),
]


@dataclass(frozen=True)
class Panel:
    """A group of bars of one unit.

    :param bars: the numbers by their labels. A label that begins with a key of :data:`COLORS` gets
        that colour.
    """

    title: str
    bars: dict[str, float]

    @property
    def height(self) -> int:
        """The height in pixels."""
        return 30 + len(self.bars) * (BAR + GAP) + 14


def plot(tables: dict[str, list[Table]], folder: Path) -> None:
    """Write the charts of the uploads and of the images, if these were measured.

    :param tables: the tables by the names of their rows.
    """
    if uploads := tables.get("upload"):
        local = uploads[0]
        panels = [_panel(local, *each) for each in UPLOAD]
        _write(local.title, panels, folder / "upload.svg")
    if images := tables.get("images"):
        panels = [
            _panel(table, f"{table.title.partition(',')[0]}: {title}", column)
            for title, column in IMAGES
            for table in images
            if column in table.columns
        ]
        _write("Images at other sizes", panels, folder / "images.svg")


def _panel(table: Table, title: str, column: str) -> Panel:
    return Panel(title, {name: float(cells[column] or 0) for name, cells in table.lines.items()})


def _write(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Write a chart: the panels, one below the other."""
    height = 44 + sum(panel.height for panel in panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-size="13" '
        'font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 28, title, 'font-size="16" font-weight="600"'),
    ]
    top = 44
    for panel in panels:
        lines += _bars(panel, top)
        top += panel.height
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</svg>", ""]))


def _bars(panel: Panel, top: int) -> list[str]:
    lines = [_text(16, top + 18, panel.title, 'font-weight="600" fill="#444444"')]
    most = max(panel.bars.values(), default=0) or 1
    for index, (label, value) in enumerate(panel.bars.items()):
        y = top + 30 + index * (BAR + GAP)
        width = max(1, round((WIDTH - LABELS - NUMBERS) * max(value, 0) / most))
        color = next((each for name, each in COLORS.items() if label.startswith(name)), OTHERS)
        lines += [
            _text(LABELS - 10, y + 15, label, 'text-anchor="end"'),
            f'<rect x="{LABELS}" y="{y}" width="{width}" height="{BAR}" rx="2" fill="{color}"/>',
            _text(LABELS + width + 8, y + 15, _number(value)),
        ]
    return lines


def _text(x: int, y: int, text: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
