"""Values of a parameter that find the same: ``make tests`` runs some, ``make tests-all`` all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly(values: Iterable[Any], usual: Collection[Any]) -> list[Any]:
    """Return the values as parameters; tests with those that are not ``usual`` are slow."""
    return [
        pytest.param(value, marks=[] if value in usual else [pytest.mark.slow]) for value in values
    ]
