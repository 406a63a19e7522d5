"""``kinto-attachment``: what an operator needs the day something went wrong, and before."""

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

from .errors import AttachmentError, SettingError
from .finding import Finding
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

OnBytes = Callable[[int], None]
Job = Callable[[argparse.Namespace, OnBytes], Iterator[Finding]]


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    :param arguments: those of the command line.
    :returns: the exit status: 0 all is well, 1 there are problems, 2 it could not be done.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _report(options)
    except KeyboardInterrupt:
        print("Interrupted; run it again to go on.", file=sys.stderr)
    except BrokenPipeError:
        # Whoever read along has enough. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AttachmentError, BackendError, ConfigurationError, OSError, ValueError) as error:
        print(f"kinto-attachment: {error}", file=sys.stderr)
    except Exception:  # which Python would end with the status of problems
        traceback.print_exc()
    return FAILED


def _report(options: argparse.Namespace) -> int:
    """Print the findings as they come, and count them at the end."""
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
    """That of the server of the ini file, set up but not started."""
    from pyramid.paster import bootstrap

    _read_ini("--ini", options.ini)
    with warnings.catch_warnings():
        # Kinto minds that there is no HTTPS, and other things that are not of now.
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
    """The settings of an ini file, as its server has them: without their prefix, and with what the
    environment says instead."""
    from kinto import DEFAULT_SETTINGS
    from kinto.core import load_default_settings
    from pyramid.config import Configurator

    config = Configurator(settings={**_read_ini(option, path), "settings_prefix": "kinto"})
    load_default_settings(config, DEFAULT_SETTINGS)
    return config.get_settings()


def _read_ini(option: str, path: str) -> Mapping[str, Any]:
    """What is in the section of the server.

    :raises SettingError: there is no such file or section, or it is broken.
    """
    from pyramid.paster import get_appsettings

    if not os.path.exists(path.partition("#")[0]):
        raise SettingError(option, f"there is no {path}")
    try:
        return get_appsettings(path)
    except (IniError, ImportError, LookupError, ValueError) as error:
        raise SettingError(option, f"{path}: {error}") from error


def _age(text: str) -> timedelta:
    """``90s``, ``30m``, ``24h``, ``7d`` or ``0``."""
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if not match or (int(match[1]) and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no age: 90s, 30m, 24h, 7d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2] or "s"]
    return timedelta(**{unit: int(match[1])})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kinto-attachment",
        description="Look after the files of a Kinto server.",
        epilog="Exit status: 0 all is well, 1 there are problems, 2 it could not be done.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, job: Job, help: str, *, ini: bool = True, changes: bool = True) -> Any:
        added = commands.add_parser(name, help=help, description=help)
        added.add_argument("--json", action="store_true", help="one JSON object a line")
        added.set_defaults(job=job, dry_run=False)
        if ini:
            default = os.environ.get("KINTO_INI", "config/kinto.ini")
            added.add_argument("--ini", default=default, help="of the server (%(default)s)")
        if changes:
            added.add_argument("--dry-run", action="store_true", help="change nothing")
        return added

    fsck = command("fsck", _fsck, "Whether records, links and objects agree.", changes=False)
    fsck.add_argument("--deep", action="store_true", help="read all bytes, compare their hashes")

    gc = command("gc", _gc, "Delete what nobody has any more.")
    gc.add_argument(
        "--older-than",
        type=_age,
        default=timedelta(hours=24),
        metavar="AGE",
        help="spare what is younger, as uploads may be under way: 90s, 30m, 24h, 7d (24h)",
    )
    gc.add_argument("--force", action="store_true", help="even if storage and database disagree")
    gc.add_argument("--offline", action="store_true", help="no server is running: spare nothing")

    verify = command("verify", _verify, "Verify what came with ?verify=false.", changes=False)
    verify.add_argument("--once", action="store_true", help="what is there now, and end")

    migrate = command("migrate", _migrate, "Copy the files to another storage, while serving.")
    migrate.add_argument("--to", required=True, metavar="INI", help="ini file with its settings")

    rewrite = command("rebase", _rebase, "Rewrite locations after base_url has changed.")
    rewrite.add_argument("--from", dest="old", required=True, metavar="URL", help="what it was")
    rewrite.add_argument("--to", dest="new", required=True, metavar="URL", help="what it is now")

    command("import", _import, "Adopt the files of the existing plugin, version 8 and before.")

    library = command("library", _library, "Create the media library, or bring it up to date.")
    library.add_argument("what", choices=["init"], help="the only thing that is to be done")
    for name, may in (
        ("editors", "write all of it, and delete it"),
        ("authors", "upload files, and write their own"),
        ("readers", "see all of it"),
    ):
        library.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PRINCIPAL",
            help=f"who may {may}; may be given again",
        )

    sends = command("upload", _upload, "Attach files to records, over HTTP.", ini=False)
    sends.add_argument("files", nargs="+", metavar="FILE", help="files and folders")
    gets = command("download", _download, "Get the files of all records, over HTTP.", ini=False)
    gets.add_argument("folder", metavar="DIR", help="where to")
    gets.add_argument("--overwrite", action="store_true", help="files that are others, too")
    for transfer in (sends, gets):
        transfer.add_argument("--server", required=True, metavar="URL", help="with its version")
        transfer.add_argument("--bucket", required=True)
        transfer.add_argument("--collection", required=True)
        transfer.add_argument(
            "--auth",
            default=os.environ.get("KINTO_AUTH"),
            metavar="USER:PASSWORD",
            help="or 'Bearer TOKEN'; best in the environment as KINTO_AUTH",
        )
        transfer.add_argument("--parallel", type=int, default=4, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(main())
