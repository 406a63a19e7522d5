"""The commands that an operator runs on a server, with its ini file."""

import argparse
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from configparser import Error as IniError
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import transaction
from kinto import DEFAULT_SETTINGS
from kinto.core import load_default_settings
from kinto.core.permission.memory import Permission as MemoryPermission
from kinto.core.utils import sqlalchemy
from plaster.exceptions import LoaderNotFound
from pyramid.config import Configurator
from pyramid.paster import bootstrap, get_appsettings

from ..errors import (
    BlobNotFound,
    CommandFailed,
    ForeignStorage,
    SettingError,
    StorageUnavailable,
)
from ..files.key import HEARTBEAT
from ..finding import Finding, Progress
from ..maintenance import cors
from ..maintenance.adopt_storage import adopt_storage
from ..maintenance.fsck import fsck
from ..maintenance.gc import collect
from ..maintenance.init_library import init_library
from ..maintenance.migrate import copy
from ..maintenance.rebase import rebase
from ..maintenance.server import Server
from ..media.verifier import Verifier
from ..settings import read_settings
from ..storage import IStorage, open_storage, place_of
from ..storage.memory import MemoryFileStorage
from ..transactions import ownership
from .failures import clean


def _fsck(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    return fsck(_server(options), deep=options.deep, progress=progress)


def _gc(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    return collect(
        _server(options),
        options.older_than,
        dry_run=options.dry_run,
        force=options.force,
        offline=options.offline,
        progress=progress,
    )


def _migrate(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    target = open_storage(read_settings(_kinto_settings("--to", options.to)))
    server = _server(options)
    _reach(target, options.to)
    try:
        yield from copy(server, target, dry_run=options.dry_run, progress=progress)
    except ForeignStorage as error:
        own = f"adopt-storage --ini {shlex.quote(options.to)}"
        raise ForeignStorage(f"--to {options.to}: {error}".replace("adopt-storage", own)) from error


def _adopt_storage(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    def confirm(whose: str) -> bool:
        if options.yes:
            return True
        if not sys.stdin.isatty():
            raise ForeignStorage(f"{whose} To adopt it without being asked, use --yes.")
        print(whose, file=sys.stderr)
        print("Files that this database does not know will be deleted by gc.", file=sys.stderr)
        return input("Adopt it? [y/N] ").strip().lower() in ("y", "yes")

    return adopt_storage(_server(options), confirm, dry_run=options.dry_run)


def _rebase(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    return rebase(
        _server(options), options.old, options.new, dry_run=options.dry_run, progress=progress
    )


def _verify(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    server = _server(options)
    verifier = Verifier(server.plugin, server.verifications)
    return verifier.verify(progress) if options.once else verifier.watch(progress)


def _cors(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    return cors.allow(_server(options), options.origins, dry_run=options.dry_run)


def _import(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    server = _server(options)
    manager = server.transaction_manager
    return server.plugin.legacy.adopt(transaction_manager=manager, dry_run=options.dry_run)


def _library(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    registry = _registry(options)
    server = _lasting(registry, options)
    if isinstance(registry.permission, MemoryPermission):
        raise _in_memory("permission", options.ini)
    return init_library(
        server,
        registry.attachment_library,
        registry.permission,
        editors=options.editors,
        authors=options.authors,
        readers=options.readers,
        take_over=options.take_over,
        dry_run=options.dry_run,
    )


DATABASE = "postgresql://USER:PASSWORD@HOST:5432/NAME"
"""The URL of a database in error messages."""

# In the names of what boto3, requests and Google's library raise if nothing answers.
_NO_ANSWER = re.compile("Connect|Timeout|Transport|Retry")

COMMANDS: Mapping[str, Callable[[argparse.Namespace, Progress], Iterator[Finding]]] = {
    "fsck": _fsck,
    "gc": _gc,
    "migrate": _migrate,
    "adopt-storage": _adopt_storage,
    "rebase": _rebase,
    "verify": _verify,
    "import": _import,
    "cors": _cors,
    "library": _library,
}


def _server(options: argparse.Namespace) -> Server:
    """Return the server that the ini file configures.

    :raises CommandFailed: if it keeps its records or files in memory, or if its storage does not
        answer.
    """
    server = _lasting(_registry(options), options)
    _reach(server.plugin.storage.backend, options.ini)
    return server


def _lasting(registry: Any, options: argparse.Namespace) -> Server:
    """Return the server of a registry.

    :raises CommandFailed: if it keeps records in memory.
    """
    server = Server.of(registry, transaction.manager)
    if not server.plugin.rows.identities.lasts:
        raise _in_memory("storage", options.ini)
    return server


def _in_memory(kind: str, ini: str) -> CommandFailed:
    """Return the error for a backend that only the process of the server can see.

    :param kind: ``storage`` or ``permission``.
    """
    return _unseen(
        f"{ini} sets kinto.{kind}_backend to memory",
        f"PostgreSQL: kinto.{kind}_backend = kinto.core.{kind}.postgresql, and kinto.{kind}_url",
    )


def _unseen(why: str, instead: str) -> CommandFailed:
    what = "where this command finds nothing of what the server has"
    return CommandFailed(f"{why}, {what}. Use {instead}")


def _reach(storage: IStorage, ini: str) -> None:
    """Ask a storage for a file that does not exist.

    :raises CommandFailed: if it does not answer, or keeps files in memory.
    """
    if isinstance(getattr(storage, "backend", storage), MemoryFileStorage):
        raise _unseen(
            f"{ini} sets kinto.attachment.storage to memory",
            "a folder (kinto.attachment.base_path) or a bucket",
        )
    try:
        with suppress(BlobNotFound):
            storage.stat(f"{HEARTBEAT}/{uuid4().hex}.txt")
    except StorageUnavailable as error:
        cause, where = error.__cause__ or error, f"The storage of {ini}"
        if _NO_ANSWER.search(type(cause).__name__):
            raise CommandFailed(f"{where} does not answer ({place_of(storage)})") from error
        # The libraries of S3 and Google have the response in their errors if there was one.
        what = "refuses access" if getattr(cause, "response", None) else "cannot be used"
        raise CommandFailed(f"{where} {what} ({place_of(storage)}): {clean(cause)}") from error


def _registry(options: argparse.Namespace) -> Any:
    """Return the registry of the server that the ini file configures; the server is not started.

    :raises SettingError: if the ini file cannot be read, has a malformed setting, or does not
        include this plugin.
    """
    _check_databases(options.ini)
    with warnings.catch_warnings(), _silent(ownership.logger):
        # Kinto warns of missing HTTPS and other things that do not concern a command.
        warnings.filterwarnings("ignore", module=r"kinto\.core\.")
        try:
            env = bootstrap(options.ini, options={"command": options.command})
        except ImportError as error:
            raise SettingError(
                "--ini", f"{options.ini} needs a missing package: {error}"
            ) from error
        except ValueError as error:
            raise SettingError(
                "--ini", f"{options.ini} has a setting that Kinto cannot read: {clean(error)}"
            ) from error
    if not hasattr(env["registry"], "attachment_plugin"):
        raise SettingError("kinto.includes", f"kinto_attachment is not included in {options.ini}")
    return env["registry"]


def _check_databases(ini: str) -> None:
    """Check the URLs of the databases: the errors of Kinto's libraries do not name the setting.

    :raises SettingError: if one is malformed, or if the ini file cannot be read.
    """
    settings = _kinto_settings("--ini", ini)
    for kind in ("storage", "permission", "cache"):
        backend, url = settings.get(f"{kind}_backend"), settings.get(f"{kind}_url")
        if str(backend).endswith(".postgresql") and not _is_postgresql(str(url)):
            # The URL may contain a password, so the message does not repeat it.
            reason = f"in {ini}, it is not the URL of a PostgreSQL database, such as {DATABASE}"
            raise SettingError(f"kinto.{kind}_url", reason)


def _is_postgresql(url: str) -> bool:
    if sqlalchemy is None:
        return True  # Kinto itself says that the package is missing
    try:
        return sqlalchemy.engine.make_url(url).get_backend_name() == "postgresql"
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return False


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Log nothing: what a starting server warns of, a command finds out itself."""
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _kinto_settings(option: str, path: str) -> Mapping[str, Any]:
    """Return the settings of an ini file as its server has them: without their prefix, and
    overridden by environment variables.

    :param option: the option that names the ini file, for error messages.
    """
    config = Configurator(settings={**_read_ini(option, path), "settings_prefix": "kinto"})
    load_default_settings(config, DEFAULT_SETTINGS)
    return config.get_settings()


def _read_ini(option: str, path: str) -> Mapping[str, Any]:
    """Return the settings in the server's section of an ini file.

    :param option: the option that names the ini file, for error messages.
    :raises SettingError: if there is no such file or section, or it is malformed.
    """
    file = path.partition("#")[0]
    if not os.path.exists(file):
        advice = (
            "pass the ini file of your server with --ini FILE, or in the environment variable "
            "KINTO_INI"
            if option == "--ini"
            else "pass the ini file with the settings of the other storage"
        )
        raise SettingError(option, f"there is no {path}: {advice}")
    try:
        with open(file, encoding="utf-8") as opened:
            opened.read()
        return get_appsettings(path)
    except OSError as error:
        raise SettingError(option, clean(error)) from error
    except UnicodeDecodeError as error:
        raise SettingError(option, f"{path} is not text in UTF-8") from error
    except LoaderNotFound as error:
        reason = f"{path} is not an ini file: its name must end with .ini"
        raise SettingError(option, reason) from error
    except (IniError, ImportError, LookupError, ValueError) as error:
        raise SettingError(option, f"{path}: {clean(error)}") from error
