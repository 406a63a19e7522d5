"""The printed report: tables of numbers, with their targets."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from textwrap import wrap

Cell = float | int | str | None
"""The value in one cell of a table; None if there is nothing to measure."""


@dataclass(frozen=True)
class Target:
    """A limit for a measured value.

    :param what: what was measured.
    :param value: the measured value; None if it could not be measured.
    :param at_least: whether the limit is a minimum, not a maximum.
    """

    what: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None if the value could not be measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
        return f"{self.what:58}{_text(self.value):>9}   {sign} {_text(self.limit):7}{verdict}"


@dataclass
class Table:
    """A table of the report.

    :param columns: the names of the columns.
    :param lines: the cells of each line by the names of the columns.
    :param notes: explanations that are printed below the table.
    """

    title: str
    columns: list[str]
    lines: dict[str, dict[str, Cell]]
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        widths = {name: max(len(name) + 2, 9) for name in self.columns}
        text = [self.title, "-" * len(self.title)]
        text.append(" " * 30 + "".join(f"{name:>{width}}" for name, width in widths.items()))
        for line, cells in self.lines.items():
            row = (f"{_text(cells.get(name)):>{width}}" for name, width in widths.items())
            text.append(f"{line:30}" + "".join(row))
        text += [str(target) for target in self.targets]
        text += [line for note in self.notes for line in wrap(f"({note})", 100)]
        return "\n".join(text) + "\n"


def ratio(value: Cell, other: Cell) -> float | None:
    """Return ``value / other``; None if either is missing, or ``other`` is zero."""
    if isinstance(value, int | float) and isinstance(other, int | float) and other:
        return value / other
    return None


def summary(tables: Iterable[Table]) -> str:
    """Return how many targets are met, and the missed ones."""
    targets = [target for table in tables for target in table.targets]
    met = sum(target.is_met is True for target in targets)
    missed = [str(target) for target in targets if target.is_met is False]
    text = f"{met} of {len(targets)} targets are met, {len(missed)} missed."
    return "\n".join([text, *missed])


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str | int):
        return str(cell)
    return (
        f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    )
