"""Letting browsers send files to the storage: its CORS rules."""

import json
from collections.abc import Iterator, Sequence

from ..errors import CommandFailed
from ..finding import Finding
from ..storage import place_of
from ..storage.staged import allow_origins
from .server import Server


def allow(server: Server, origins: Sequence[str], *, dry_run: bool = False) -> Iterator[Finding]:
    """Let scripts of these origins send and read files, and those of no other origins that an
    earlier call has allowed. Yield ``rule`` for each rule that the bucket has then.

    :param dry_run: change nothing.
    :raises CommandFailed: if browsers never speak to the storage.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    storage = server.plugin.storage
    rules = allow_origins(storage, origins, dry_run)
    if rules is None:
        raise CommandFailed(
            f"browsers send no files to {place_of(storage)}, but to Kinto itself, which has the"
            " setting kinto.cors_origins"
        )
    for rule in rules:
        yield Finding("rule", detail=json.dumps(rule))
