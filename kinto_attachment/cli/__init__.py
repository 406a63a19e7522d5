"""The ``kinto-attachment`` command: arguments and output; the work is done elsewhere.

Every command yields findings. They are printed one a line, as text or as JSON, and a summary
follows on stderr.
"""

from .run import main

__all__ = ["main"]
