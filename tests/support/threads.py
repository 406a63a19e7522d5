"""Function calls in other threads, as each transaction belongs to one thread."""

import threading
from concurrent.futures import ThreadPoolExecutor


def in_thread(call, timeout=None) -> threading.Thread:
    """Call a function in another thread, which has its own transaction; wait for it and return the
    thread.

    :param timeout: seconds to wait at most. The thread continues afterwards.
    :raises: the exception that the function raised, if it ended in time.
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
    """Call a function in several threads at the same time; return the results of all calls."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]
