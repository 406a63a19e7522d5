"""Calls in other threads, as a transaction belongs to one thread."""

import threading
from concurrent.futures import ThreadPoolExecutor


def in_thread(call, timeout=None) -> threading.Thread:
    """Call a function in another thread, which has a transaction of its own, and wait for it.

    :param timeout: seconds to wait; the thread goes on afterwards.
    :raises: whatever the call raised by then.
    """
    errors = []

    def run():
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    return thread


def at_once(count: int, call) -> list:
    """Call a function in as many threads at the same time; return what it returned."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]
