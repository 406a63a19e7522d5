"""A plugin for Kinto that writes a line for each image it resizes to the file that the environment
names. ``kinto.includes = ... tests.support.servers.counting``"""

import os
from functools import wraps
from pathlib import Path

from kinto_attachment.images.worker.pool import BorrowedWorker


def includeme(config) -> None:
    resize = BorrowedWorker.resize

    @wraps(resize)
    def counted(self, input, picture, plan, output, into):
        with Path(os.environ["RESIZES"]).open("a") as file:
            file.write(f"{plan.width}x{plan.height}\n")
        return resize(self, input, picture, plan, output, into)

    BorrowedWorker.resize = counted
