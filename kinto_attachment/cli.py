"""The ``kinto-attachment`` command: arguments and output; the work is done elsewhere.

Every command yields findings. They are printed one a line, as text or as JSON, and a summary
follows on stderr.
"""

import argparse
import json
import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from configparser import Error as IniError
from contextlib import closing
from datetime import timedelta
from typing import Any

import transaction
from kinto.core.storage.exceptions import BackendError
from pyramid.exceptions import ConfigurationError
from tqdm import tqdm

from .errors import AttachmentError, ForeignStorage, SettingError
from .finding import Finding
from .maintenance.adopt_storage import adopt_storage
from .maintenance.fsck import fsck
from .maintenance.gc import collect
from .maintenance.init_library import init_library
from .maintenance.migrate import copy
from .maintenance.rebase import rebase
from .maintenance.server import Server
from .media.verifier import Verifier
from .settings import read_settings
from .storage import open_storage
from .transfer.client import Client
from .transfer.download import download
from .transfer.upload import upload

CLEAN, PROBLEMS, FAILED = 0, 1, 2
"""Exit statuses."""

OnBytes = Callable[[int], None]
Job = Callable[[argparse.Namespace, OnBytes], Iterator[Finding]]


def main(arguments: list[str] | None = None) -> int:
    """Run a command, and print what it finds.

    :param arguments: the arguments; those of the command line by default.
    :returns: the exit status: 0 if all is well, 1 if there are problems, 2 if the command failed.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _report(options)
    except KeyboardInterrupt:
        print("Interrupted; run it again to go on.", file=sys.stderr)
    except BrokenPipeError:
        # The reader of our output has ended. Python would fail again when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttachmentError, BackendError, ConfigurationError, OSError, ValueError) as error:
        print(f"kinto-attachment: {error}", file=sys.stderr)
    except Exception:  # Python itself would exit with status 1, which means problems
        traceback.print_exc()
    return FAILED


def _report(options: argparse.Namespace) -> int:
    """Print each finding as soon as it is known, and their counts at the end. Return the exit
    status."""
    counts: dict[str, int] = {}
    problems = False
    on_terminal = sys.stderr.isatty() and not options.json
    with tqdm(unit="B", unit_scale=True, disable=not on_terminal, leave=False) as progress:
        for finding in options.job(options, progress.update):
            counts[finding.kind] = counts.get(finding.kind, 0) + 1
            problems = problems or finding.is_problem
            line = json.dumps(finding.to_json()) if options.json else str(finding)
            progress.clear()
            print(line, flush=True)
            progress.set_postfix_str(f"{sum(counts.values())} findings", refresh=False)
    if not options.json:
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        print(f"{'Dry run: ' * options.dry_run}{summary or 'nothing to report'}", file=sys.stderr)
    return PROBLEMS if problems else CLEAN


def _server(options: argparse.Namespace) -> Server:
    return Server.of(_registry(options), transaction.manager)


def _registry(options: argparse.Namespace) -> Any:
    """Return the registry of the server that the ini file configures; the server is not started.

    :raises SettingError: if the ini file cannot be read, or does not include this plugin.
    """
    from pyramid.paster import bootstrap

    _read_ini("--ini", options.ini)
    with warnings.catch_warnings():
        # Kinto warns of missing HTTPS and other things that do not concern a command.
        warnings.filterwarnings("ignore", module=r"kinto\.core\.")
        env = bootstrap(options.ini, options={"command": options.command})
    if not hasattr(env["registry"], "attachment_plugin"):
        raise SettingError("kinto.includes", f"kinto_attachment is not included in {options.ini}")
    return env["registry"]


def _fsck(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    return fsck(_server(options), deep=options.deep, on_bytes=on_bytes)


def _gc(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    return collect(
        _server(options),
        options.older_than,
        dry_run=options.dry_run,
        force=options.force,
        offline=options.offline,
    )


def _migrate(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    target = open_storage(read_settings(_kinto_settings("--to", options.to)))
    return copy(_server(options), target, dry_run=options.dry_run, on_bytes=on_bytes)


def _adopt_storage(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    def confirm(whose: str) -> bool:
        if options.yes:
            return True
        if not sys.stdin.isatty():
            raise ForeignStorage(f"{whose} To adopt it without being asked, use --yes.")
        print(whose, file=sys.stderr)
        print("Files that this database does not know will be deleted by gc.", file=sys.stderr)
        return input("Adopt it? [y/N] ").strip().lower() in ("y", "yes")

    return adopt_storage(_server(options), confirm, dry_run=options.dry_run)


def _rebase(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    return rebase(_server(options), options.old, options.new, dry_run=options.dry_run)


def _verify(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    server = _server(options)
    verifier = Verifier(server.media, server.metrics)
    return verifier.verify(on_bytes) if options.once else verifier.watch(on_bytes)


def _import(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    server = _server(options)
    manager = server.transaction_manager
    return server.plugin.legacy.adopt(transaction_manager=manager, dry_run=options.dry_run)


def _library(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    registry = _registry(options)
    return init_library(
        Server.of(registry, transaction.manager),
        registry.attachment_library,
        registry.permission,
        editors=options.editors,
        authors=options.authors,
        readers=options.readers,
        take_over=options.take_over,
        dry_run=options.dry_run,
    )


def _upload(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    with _client(options) as client:
        how = {"parallel": options.parallel, "dry_run": options.dry_run, "on_bytes": on_bytes}
        with closing(upload(client, options.files, **how)) as findings:
            yield from findings


def _download(options: argparse.Namespace, on_bytes: OnBytes) -> Iterator[Finding]:
    with _client(options) as client:
        how = {"parallel": options.parallel, "dry_run": options.dry_run, "on_bytes": on_bytes}
        job = download(client, options.folder, overwrite=options.overwrite, **how)
        with closing(job) as findings:
            yield from findings


def _client(options: argparse.Namespace) -> Client:
    return Client(options.server, options.bucket, options.collection, options.auth)


def _kinto_settings(option: str, path: str) -> Mapping[str, Any]:
    """Return the settings of an ini file as its server has them: without their prefix, and
    overridden by environment variables.

    :param option: the option that names the ini file, for error messages.
    """
    from kinto import DEFAULT_SETTINGS
    from kinto.core import load_default_settings
    from pyramid.config import Configurator

    config = Configurator(settings={**_read_ini(option, path), "settings_prefix": "kinto"})
    load_default_settings(config, DEFAULT_SETTINGS)
    return config.get_settings()


def _read_ini(option: str, path: str) -> Mapping[str, Any]:
    """Return the settings in the server's section of an ini file.

    :param option: the option that names the ini file, for error messages.
    :raises SettingError: if there is no such file or section, or it is malformed.
    """
    from pyramid.paster import get_appsettings

    if not os.path.exists(path.partition("#")[0]):
        raise SettingError(option, f"there is no {path}")
    try:
        return get_appsettings(path)
    except (IniError, ImportError, LookupError, ValueError) as error:
        raise SettingError(option, f"{path}: {error}") from error


def _age(text: str) -> timedelta:
    """Parse an age: ``90s``, ``30m``, ``24h``, ``7d`` or ``0``."""
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if not match or (int(match[1]) and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90s, 30m, 24h, 7d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2] or "s"]
    return timedelta(**{unit: int(match[1])})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kinto-attachment",
        description="Check, clean up and move the files of a Kinto server.",
        epilog="Exit status: 0 all is well, 1 there are problems, 2 the command failed.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, job: Job, help: str, *, ini: bool = True, changes: bool = True) -> Any:
        added = commands.add_parser(name, help=help, description=help)
        added.add_argument("--json", action="store_true", help="print one JSON object a line")
        added.set_defaults(job=job, dry_run=False)
        if ini:
            default = os.environ.get("KINTO_INI", "config/kinto.ini")
            added.add_argument(
                "--ini", default=default, help="ini file of the server (default: %(default)s)"
            )
        if changes:
            added.add_argument("--dry-run", action="store_true", help="change nothing")
        return added

    fsck = command("fsck", _fsck, "Check that records and stored files agree.", changes=False)
    fsck.add_argument(
        "--deep", action="store_true", help="also read all files and check their hashes"
    )

    gc = command("gc", _gc, "Delete files that are no longer needed.")
    gc.add_argument(
        "--older-than",
        type=_age,
        default=timedelta(hours=24),
        metavar="AGE",
        help="spare younger files, because uploads may be in progress: 90m, 24h, 7d (default: 24h, "
        "at least 1h unless --offline)",
    )
    gc.add_argument(
        "--force", action="store_true", help="delete even if storage and database do not match"
    )
    gc.add_argument(
        "--offline", action="store_true", help="spare nothing; no server may be running"
    )

    verify = command(
        "verify", _verify, "Check the hashes of uploads made with ?verify=false.", changes=False
    )
    verify.add_argument("--once", action="store_true", help="check the pending uploads and exit")

    migrate = command(
        "migrate", _migrate, "Copy all files to another storage while the server runs."
    )
    migrate.add_argument(
        "--to", required=True, metavar="INI", help="ini file with the settings of the other storage"
    )

    adopt = command(
        "adopt-storage", _adopt_storage, "Mark the file storage as belonging to this database."
    )
    adopt.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    rebase = command("rebase", _rebase, "Rewrite the locations in records after base_url changed.")
    rebase.add_argument("--from", dest="old", required=True, metavar="URL", help="the old base_url")
    rebase.add_argument("--to", dest="new", required=True, metavar="URL", help="the new base_url")

    command("import", _import, "Adopt the files of kinto-attachment 0.x to 9.x.")

    library = command("library", _library, "Create or update the media library.")
    library.add_argument(
        "what", choices=["init"], help="create or update the bucket and the collection"
    )
    library.add_argument(
        "--take-over",
        action="store_true",
        help="remove permissions to write and create, groups and attributes of strangers",
    )
    for name, may in (
        ("editors", "write all media, and the attributes of the collection"),
        ("authors", "upload files, and write their own media"),
        ("readers", "read all media"),
    ):
        library.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PRINCIPAL",
            help=f"a principal that may {may}; can be repeated",
        )

    upload = command("upload", _upload, "Upload files to a collection, over HTTP.", ini=False)
    upload.add_argument("files", nargs="+", metavar="FILE", help="files and folders")
    download = command("download", _download, "Download the files of all records.", ini=False)
    download.add_argument("folder", metavar="DIR", help="the local folder")
    download.add_argument("--overwrite", action="store_true", help="replace different files")
    for transfer in (upload, download):
        transfer.add_argument("--server", required=True, metavar="URL", help="https://.../v1")
        transfer.add_argument("--bucket", required=True)
        transfer.add_argument("--collection", required=True)
        transfer.add_argument(
            "--auth",
            default=os.environ.get("KINTO_AUTH"),
            metavar="USER:PASSWORD",
            help="or 'Bearer TOKEN'; better given in the environment as KINTO_AUTH",
        )
        transfer.add_argument(
            "--parallel",
            type=int,
            default=4,
            metavar="N",
            help="files at the same time (default: 4)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
