"""One transaction ended, another begun: nothing is held between."""

from collections.abc import Callable
from typing import Any


def begin_again(
    transaction_manager: Any,
    files: Any,
    carry_hooks: bool = True,
    between: Callable[[], Any] = lambda: None,
) -> Any:
    """End a transaction without a trace and begin another; see
    :func:`kinto_attachment.transaction.restart`.

    :param files: what it does to files (:class:`kinto_attachment.files.Files`), or None.
    :param between: is called after the old transaction, and before the new one.
    :returns: what it returned.
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
