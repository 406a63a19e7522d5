"""Running a transaction again, and beginning another one."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kinto.core.storage.exceptions import IntegrityError

if TYPE_CHECKING:
    from .files import FileTransaction

Item = TypeVar("Item")

ATTEMPTS = 15
"""How often something is tried that conflicts with what others write. So many suffice, because each
failed attempt means that another one has succeeded."""


def repeated(call: Callable[[], Item]) -> Item:
    """Return what ``call`` returns, which is a transaction of its own. Call it again after a
    conflict: two rows that are written to one parent in the same millisecond (see
    :mod:`kinto_attachment.transactions.retry`)."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except IntegrityError:
            time.sleep(random.uniform(0, 0.01 * attempt))
    return call()


def in_transaction(transaction_manager: Any, call: Callable[[], Item]) -> Item:
    """Return what ``call`` returns, called in a transaction of its own. It is called again after a
    conflict."""

    def committed() -> Item:
        with transaction_manager:
            return call()

    return repeated(committed)


def restart_transaction(
    transaction_manager: Any,
    files: "FileTransaction | None",
    carry_hooks: bool = True,
    between: Callable[[], Any] = lambda: None,
) -> Any:
    """Abort the current transaction, begin another one, and return what ``between`` returned.

    :param files: the data manager to carry over, with the bytes it has stored; None if there is
        none yet.
    :param carry_hooks: carry over the after-commit hooks as well.
    :param between: is called while there is no transaction.
    """
    hooks = list(transaction_manager.get().getAfterCommitHooks()) if carry_hooks else []
    if files:
        files.leave()
    transaction_manager.abort()
    try:
        return between()
    finally:
        current = transaction_manager.begin()
        for hook, args, kwargs in hooks:
            current.addAfterCommitHook(hook, args, kwargs)
        if files:
            files.join()
