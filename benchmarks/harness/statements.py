"""What a server asks its database, written down: an include of Kinto, in the server's process.

It is copied to where the server finds it, as it runs with another plugin, too.
"""

import os

from sqlalchemy import event
from sqlalchemy.engine import Engine


def includeme(config):
    file = open(os.environ["STATEMENTS"], "a", buffering=1)

    def note(statement, values=""):
        file.write(f"{' '.join(statement.split())}  {values}\n")

    @event.listens_for(Engine, "before_cursor_execute")
    def on_statement(connection, cursor, statement, parameters, context, executemany):
        values = parameters.values() if isinstance(parameters, dict) else parameters
        note(statement, list(values))

    event.listen(Engine, "commit", lambda connection: note("COMMIT"))
    event.listen(Engine, "rollback", lambda connection: note("ROLLBACK"))
