"""The arguments of the commands. This module imports nothing that a shell's completion would have
to wait for."""

import argparse
import os
import re
from datetime import timedelta
from importlib.metadata import version
from typing import Any

INI = "config/kinto.ini"
"""The ini file if neither ``--ini`` nor ``KINTO_INI`` names one."""

LIBRARY_ONLY = ("title", "alt", "tag", "metadata")
"""The options of ``upload`` that describe media."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed arguments. If they are wrong, print what is wrong and exit with status 2.

    :param arguments: the arguments; those of the command line by default.
    """
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command == "upload":
        _check_upload(parser, options)
    return options


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="kinto-attachment",
        description="Check, clean up and move the files of a Kinto server, and send files to one.",
        epilog="Exit status: 0 all is well, 1 there are problems, 2 the command failed.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('kinto-attachment')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_maintenance(commands)
    _add_library(commands)
    _add_transfers(commands)
    return parser


def _add(commands: Any, name: str, help: str, *, ini: bool = True, changes: bool = True) -> Any:
    """Add a command with the options that most commands share.

    :param ini: whether it works on the ini file of a server.
    :param changes: whether it changes anything, so that it can be tried with ``--dry-run``.
    """
    added = commands.add_parser(name, help=help, description=help)
    added.add_argument("--json", action="store_true", help="print one JSON object a line")
    added.add_argument(
        "--quiet", action="store_true", help="print only problems, and show no progress"
    )
    added.set_defaults(ini=None, dry_run=False)
    if ini:
        added.add_argument(
            "--ini",
            default=os.environ.get("KINTO_INI", INI),
            metavar="FILE",
            help="ini file of the server; also in KINTO_INI (default: %(default)s)",
        )
    if changes:
        added.add_argument("--dry-run", action="store_true", help="change nothing")
    return added


def _add_maintenance(commands: Any) -> None:
    fsck = _add(commands, "fsck", "Check that records and stored files agree.", changes=False)
    fsck.add_argument(
        "--deep", action="store_true", help="also read all files and check their hashes"
    )

    gc = _add(commands, "gc", "Delete files that are no longer needed.")
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

    verify = _add(
        commands,
        "verify",
        "Check the hashes of uploads made with ?verify=false, and of large direct uploads.",
        changes=False,
    )
    verify.add_argument("--once", action="store_true", help="check the pending uploads and exit")

    migrate = _add(commands, "migrate", "Copy all files to another storage while the server runs.")
    migrate.add_argument(
        "--to", required=True, metavar="INI", help="ini file with the settings of the other storage"
    )

    adopt = _add(commands, "adopt-storage", "Mark the file storage as that of this database.")
    adopt.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    rebase = _add(commands, "rebase", "Rewrite the locations in records after base_url changed.")
    for name, which in (("--from", "old"), ("--to", "new")):
        help = f"the {which} base_url; empty for relative locations"
        rebase.add_argument(name, dest=which, type=_url, required=True, metavar="URL", help=help)

    cors = _add(commands, "cors", "Let browsers send files to the bucket: set its CORS rules.")
    cors.add_argument(
        "--origin",
        action="append",
        dest="origins",
        type=_origin,
        required=True,
        metavar="ORIGIN",
        help="where the pages are, such as https://app.example; can be repeated",
    )

    _add(commands, "import", "Adopt the files of kinto-attachment 0.x to 9.x.")


def _add_library(commands: Any) -> None:
    library = _add(commands, "library", "Create or update the media library.")
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
            type=_principal,
            default=[],
            metavar="PRINCIPAL",
            help=f"a principal that may {may}; can be repeated",
        )


def _add_transfers(commands: Any) -> None:
    upload = _add(
        commands, "upload", "Upload files to a collection or to the media library.", ini=False
    )
    upload.epilog = (
        "Run it again after an interruption: finished files are skipped, and files of more than "
        "8 MiB go on where they were cut off."
    )
    upload.add_argument("files", nargs="+", metavar="FILE", help="files and folders")
    download = _add(commands, "download", "Download the files of all records.", ini=False)
    download.add_argument("folder", metavar="DIR", help="the local folder")
    download.add_argument("--overwrite", action="store_true", help="replace different files")
    for transfer in (upload, download):
        transfer.add_argument("--server", required=True, metavar="URL", help="https://.../v1")
        is_download = transfer is download
        for name in ("bucket", "collection"):
            transfer.add_argument(f"--{name}", required=is_download, metavar="ID")
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
    upload.add_argument(
        "--records",
        action="store_true",
        help="FILE is a folder as download writes it: send each file to the record that it is of",
    )
    media = upload.add_argument_group(
        "media library", "instead of --bucket and --collection; the options describe all files"
    )
    media.add_argument("--library", action="store_true", help="upload to the media library")
    media.add_argument("--title", metavar="TEXT", help="their title")
    media.add_argument("--alt", metavar="TEXT", help="their alternative text")
    media.add_argument("--tag", action="append", metavar="TEXT", help="a tag; can be repeated")
    media.add_argument(
        "--metadata",
        metavar="CSV",
        help="a table with the columns file, title, alt and tags (separated by semicolons)",
    )


def _check_upload(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.records and options.library:
        parser.error("--records and --library exclude each other: media have one file each")
    if options.records and len(options.files) > 1:
        parser.error("--records takes one folder")
    if options.library:
        if options.bucket or options.collection:
            parser.error("--library is instead of --bucket and --collection: the server knows them")
        return
    missing = [f"--{name}" for name in ("bucket", "collection") if not getattr(options, name)]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)} (or --library)")
    given = [f"--{name}" for name in LIBRARY_ONLY if getattr(options, name)]
    if given:
        parser.error(f"{', '.join(given)}: only media have it, so use --library too")


def _url(text: str) -> str:
    """Check a base URL, which may be empty."""
    if text and not re.match(r"(https?:)?//[^/]", text):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with http:// or https://")
    return text


def _origin(text: str) -> str:
    """Check an origin, or a pattern of origins as S3 and Google take it."""
    if text == "*" or re.fullmatch(r"https?://[^/\s]+", text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://app.example")


def _principal(text: str) -> str:
    """Check a principal: a user, a group, or one of Kinto's own."""
    if text in ("system.Everyone", "system.Authenticated"):
        return text
    if re.fullmatch(r"/buckets/[^/]+/groups/[^/]+|[^:/\s]+:\S+", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a principal: use system.Everyone, system.Authenticated, a user such as "
        "account:alice, or a group such as /buckets/site/groups/editors"
    )


def _age(text: str) -> timedelta:
    """Parse an age: ``90s``, ``30m``, ``24h``, ``7d`` or ``0``."""
    match = re.fullmatch(r"(\d+)([smhd]?)", text)
    if not match or (int(match[1]) and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 90s, 30m, 24h, 7d")
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2] or "s"]
    return timedelta(**{unit: int(match[1])})
