"""The commands that a client runs: files to and from a server, over HTTP."""

import argparse
from collections.abc import Iterator
from contextlib import closing

from ..finding import Finding, Progress
from ..transfer.client import Client
from ..transfer.download import download
from ..transfer.library import Description, read_descriptions, upload_media
from ..transfer.records.upload import upload_records
from ..transfer.upload import upload


def _upload(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    how = {"parallel": options.parallel, "dry_run": options.dry_run, "progress": progress}
    with _client(options) as client:
        if options.library:
            general = Description(options.title or "", options.alt or "", tuple(options.tag or ()))
            single = read_descriptions(options.metadata) if options.metadata else {}
            job = upload_media(client, options.files, general, single, **how)
        elif options.records:
            job = upload_records(client, options.files[0], **how)
        else:
            job = upload(client, options.files, **how)
        with closing(job):
            yield from job


def _download(options: argparse.Namespace, progress: Progress) -> Iterator[Finding]:
    how = {"parallel": options.parallel, "dry_run": options.dry_run, "progress": progress}
    with _client(options) as client:
        job = download(client, options.folder, overwrite=options.overwrite, **how)
        with closing(job):
            yield from job


def _client(options: argparse.Namespace) -> Client:
    return Client(options.server, options.bucket or "", options.collection or "", options.auth)


COMMANDS = {"upload": _upload, "download": _download}
