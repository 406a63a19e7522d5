"""Sending files of one run: each in a form, or in a resumable upload."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any

from urllib3.fields import guess_content_type

from ...files.blob import Digest
from ..client import Client
from ..pool import FileProgress
from ..responses import (
    LATER,
    Forbidden,
    TransferFailed,
    TryAgain,
    check_response,
    json_of,
)
from ..server_info import ServerInfo
from .form import Form, ProgressForm
from .journal import Journal
from .resumable import ResumableUpload, metadata
from .source import SourceFile

RESUMABLE_ABOVE = 8 * 1024 * 1024
"""Bytes. Smaller files are sent in a form, which takes one request instead of four."""

FINAL = ("refused", "changed", "conflict", "damaged")
"""The kinds of failures after which it would be in vain to go on with an upload."""


@dataclass(frozen=True)
class Destination:
    """Where a file goes, and what is said about it.

    :param url: takes a form, and resumable uploads at ``{url}/uploads``.
    :param name: the name of the file; what is before its last slash is not sent.
    :param fields: the text fields of the form.
    :param conditions: headers such as ``If-Match``.
    :param file_field: the field of the form with the file.
    :param target: what a resumable upload becomes, if the URL serves several purposes.
    """

    url: str
    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    file_field: str = "attachment"
    target: str = ""


@dataclass(frozen=True)
class Sent:
    """A file that the server has.

    :param answer: what describes it there.
    :param etag: the ``ETag`` of its record; empty if there is none.
    :param hash: the SHA-256 of the bytes that were sent.
    :param size: how many bytes were sent.
    """

    answer: dict[str, Any]
    etag: str
    hash: str
    size: int

    def check(self) -> "Sent":
        """Return this if the server has stored the bytes that were sent.

        :raises TransferFailed: if it has not.
        """
        if (self.answer.get("hash"), self.answer.get("size")) != (self.hash, self.size):
            raise damaged(self.hash, self.answer.get("hash"))
        return self


class Sender:
    """Sends the files of one run.

    :param info: what the server says about itself.
    """

    def __init__(self, client: Client, info: ServerInfo):
        self._client, self._info = client, info
        self._journal = Journal()

    def file(self, path: str, progress: FileProgress) -> "FileSender":
        """Return what sends a local file."""
        return FileSender(self._client, self._info, self._journal, path, progress)


class FileSender:
    """Sends one file. After an attempt that has failed, the next one goes on with what the server
    has already, if the file goes to the same destination. So does the next run, if this context
    manager is left with an error that may be temporary."""

    def __init__(
        self,
        client: Client,
        info: ServerInfo,
        journal: Journal,
        path: str,
        progress: FileProgress,
    ):
        self._client, self._info, self._journal = client, info, journal
        self._path, self._progress = path, progress
        self._opened: tuple[SourceFile, str] | None = None
        self._upload: ResumableUpload | None = None

    def position(self) -> int:
        """Return how far the upload has got, for :meth:`~..client.Client.persist`."""
        return self._upload.reached if self._upload else 0

    def send(self, to: Destination) -> Sent:
        """Send the file once.

        :raises PreconditionFailed: if a condition of the destination is not met.
        :raises TransferFailed: if the file cannot be sent.
        :raises OSError: if it cannot be read.
        """
        if self._opened or (self._info.takes_resumable and self._is_large()):
            return self._send_resumable(to)
        return self._send_form(to)

    def _is_large(self) -> bool:
        return os.path.getsize(self._path) > RESUMABLE_ABOVE

    def _send_form(self, to: Destination) -> Sent:
        with open(self._path, "rb") as file:
            form = Form(file, to.name, to.fields, to.file_field)
            headers = {"Content-Type": form.content_type, **to.conditions}
            body = ProgressForm(form, self._client, self._progress)
            response = self._client.request("POST", to.url, headers=headers, data=body)
        answer = json_of(check_response(response))
        etag = response.headers.get("ETag", "")
        return Sent(answer, etag, form.digest.hexdigest(), form.size)

    def _send_resumable(self, to: Destination) -> Sent:
        if not self._opened:
            self._opened = self._open()
        source, digest = self._opened
        upload = self._upload_to(to, source, digest)
        answer, etag = upload.send()
        return Sent(answer, etag, digest, source.size)

    def _open(self) -> tuple[SourceFile, str]:
        """Open the file, and hash it. It stays open, so that no other file can take its place."""
        source = SourceFile(open(self._path, "rb"))
        digest = Digest()
        try:
            for chunk in source.chunks(0, source.size):
                self._client.go_on()
                digest.update(chunk)
        except BaseException:
            source.close()
            raise
        return source, digest.hexdigest()

    def _upload_to(self, to: Destination, source: SourceFile, digest: str) -> ResumableUpload:
        """Return the upload of an earlier attempt if it has the same destination, else a new one or
        that of an earlier run."""
        name = PurePosixPath(to.name).name
        target = {"target": to.target} if to.target else {}
        values = {"filename": name, "filetype": guess_content_type(name), **to.fields, **target}
        headers = {
            "Upload-Length": str(source.size),
            "Upload-Metadata": metadata(values),
            **to.conditions,
        }
        url = f"{to.url}/uploads"
        if self._upload and not self._upload.is_for(url, headers):
            self._upload.discard()
            self._upload.close()
            self._upload = None
        if not self._upload:
            entry = self._journal.open(
                server=self._info.url,
                user=self._info.user,
                url=url,
                headers=headers,
                path=os.path.abspath(self._path),
                hash=digest,
            )
            self._upload = ResumableUpload(
                self._client, source, url, headers, entry, self._progress
            )
        return self._upload

    def __enter__(self) -> "FileSender":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._upload:
            if error is None or _is_final(error):
                self._upload.discard()
            self._upload.close()
        if self._opened:
            with suppress(OSError):
                self._opened[0].close()


def _is_final(error: BaseException) -> bool:
    is_temporary = isinstance(error, TryAgain | Forbidden)
    return isinstance(error, TransferFailed) and not is_temporary and error.kind in FINAL


def damaged(sent: str, stored: Any) -> TransferFailed:
    """Return the error for a file that has arrived with other bytes."""
    remedy = f"{LATER}; check the proxies between this computer and the server"
    return TransferFailed("damaged", f"sent {sent}, stored {stored}", remedy)
