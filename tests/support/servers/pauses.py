"""A plugin for Kinto that pauses before and after storing, deleting and committing, so that crashes
happen in between. ``kinto.includes = ... tests.support.servers.pauses``"""

import random
import time
from functools import wraps

from pyramid.events import ApplicationCreated
from sqlalchemy import event

LONGEST = 0.08
"""Seconds."""


def pause(*args) -> None:
    time.sleep(random.uniform(0, LONGEST))


def slow(call):
    @wraps(call)
    def paused(*args, **options):
        pause()
        try:
            return call(*args, **options)
        finally:
            pause()

    return paused


def includeme(config) -> None:
    def install(created) -> None:
        registry = created.app.registry
        storage = registry.attachment_plugin.storage
        for name in ("put", "delete", "compose"):
            setattr(storage, name, slow(getattr(storage, name)))
        engine = registry.storage.client.session_factory.session_factory.kw["bind"]
        event.listen(engine, "commit", pause)

    config.add_subscriber(install, ApplicationCreated)
