"""A log of the SQL statements of a server; an include of Kinto.

This module is copied to a folder of its own, because a server with the existing plugin must not
find this project.
"""

import os

from sqlalchemy import event
from sqlalchemy.engine import Engine


def includeme(config):
    """Log all statements, commits and rollbacks to the file ``STATEMENTS``."""
    file = open(os.environ["STATEMENTS"], "a", buffering=1)

    def note(statement, values=""):
        file.write(f"{' '.join(statement.split())}  {values}\n")

    @event.listens_for(Engine, "before_cursor_execute")
    def on_statement(connection, cursor, statement, parameters, context, executemany):
        values = parameters.values() if isinstance(parameters, dict) else parameters
        note(statement, list(values))

    event.listen(Engine, "commit", lambda connection: note("COMMIT"))
    event.listen(Engine, "rollback", lambda connection: note("ROLLBACK"))
