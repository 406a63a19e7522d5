"""A data manager that makes transactions fail."""

import transaction


class FailingDataManager:
    """A data manager that fails at one step of the commit.

    :param step: the method that fails: ``tpc_begin``, ``commit``, ``tpc_vote`` or ``tpc_finish``.
    :param sort_key: its place among the data managers of the transaction, which take each step in
        the order of their sort keys.
    """

    def __init__(self, step: str, sort_key: str):
        self.step, self._sort_key = step, sort_key
        self.transaction_manager = transaction.manager

    def sortKey(self):
        return self._sort_key

    def abort(self, transaction):
        pass

    tpc_abort = abort

    def __getattr__(self, name):
        if name not in ("tpc_begin", "commit", "tpc_vote", "tpc_finish"):
            raise AttributeError(name)

        def run(transaction):
            if name == self.step:
                raise RuntimeError(f"{name} failed")

        return run
