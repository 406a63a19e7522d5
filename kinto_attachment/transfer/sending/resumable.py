"""A resumable upload: tus 1.0 (https://tus.io/protocols/resumable-upload), as a client."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from requests import Response

from ..client import Client
from ..pool import FileProgress
from ..responses import REMEDIES, TransferFailed, TryAgain, check_response, json_of
from .journal import UPLOAD_ID, JournalEntry
from .source import SourceFile

PIECE = 64 * 1024 * 1024
"""Bytes that one request sends. The server keeps what has arrived of a request that breaks off, but
a proxy that receives whole requests first loses all of it."""

VERSION = {"Tus-Resumable": "1.0.0"}

_ENDED = (404, 410)


class ResumableUpload:
    """The upload of one file. Each attempt goes on where the one before broke off.

    :param source: the file.
    :param url: the URL below which it is created.
    :param headers: of the request that creates it.
    :param entry: what the journal knows about it.
    :ivar reached: the largest offset that was seen, in bytes.
    """

    def __init__(
        self,
        client: Client,
        source: SourceFile,
        url: str,
        headers: Mapping[str, str],
        entry: JournalEntry,
        progress: FileProgress,
    ):
        self._client, self._source, self._progress = client, source, progress
        self._base, self._headers = url, dict(headers)
        self._entry = entry
        self._is_attached = False
        self.reached = 0

    def is_for(self, url: str, headers: Mapping[str, str]) -> bool:
        """Return whether these would create the same upload."""
        return (self._base, self._headers) == (url, headers)

    def send(self) -> tuple[dict[str, Any], str]:
        """Send what the server does not have yet. Return what describes the file there, and the
        ``ETag`` of its record.

        :raises TryAgain: if the connection breaks, the server is busy or has lost the upload, or
            another request has sent the same bytes.
        :raises TransferFailed: if the server refuses the file, or the file was changed.
        """
        state = (self._look() if self._entry.upload else None) or self._create()
        while state["state"] != "attached":
            response = self._patch(state["offset"])
            before, state = state, self._look()
            if state is None:
                raise TryAgain("the upload has expired", after=0)
            if state["state"] != "attached":
                check_response(response)
                if state["offset"] <= before["offset"]:
                    raise TryAgain("the server does not store what it gets")
        self._is_attached = True
        file = state.get("file")
        return file if isinstance(file, dict) else {}, state["etag"]

    def discard(self) -> None:
        """Forget the upload. If its file is not attached, delete what the server has of it."""
        if self._entry.upload and not self._is_attached:
            with suppress(TransferFailed):
                self._client.request("DELETE", self._url, headers=VERSION)
        self._entry.write("")

    def close(self) -> None:
        """Let another process go on with the upload."""
        self._entry.close()

    @property
    def _url(self) -> str:
        # Behind a proxy, the server may not know its public host, so Location is not used.
        return f"{self._base}/{self._entry.upload}"

    def _create(self) -> dict[str, Any]:
        headers = {**VERSION, **self._headers}
        response = check_response(self._client.request("POST", self._base, headers=headers))
        upload = response.headers.get("Location", "").rpartition("/")[2]
        if not UPLOAD_ID.fullmatch(upload):
            raise TransferFailed("failed", "the server does not name the upload", REMEDIES[500])
        self._entry.write(upload)
        return {"state": "open", "offset": 0}

    def _look(self) -> dict[str, Any] | None:
        """Return how far the upload is, or None if the server does not have it any more."""
        response = self._client.request("GET", self._url, headers=VERSION)
        if response.status_code in _ENDED:
            self._entry.write("")
            return None
        state = json_of(check_response(response))
        offset = state.get("offset")
        if not isinstance(offset, int) or not 0 <= offset <= self._source.size:
            raise TransferFailed("failed", f"the server has stored {offset} bytes", REMEDIES[500])
        self.reached = max(self.reached, offset)
        self._progress.reach(offset)
        return {**state, "state": state.get("state"), "etag": response.headers.get("ETag", "")}

    def _patch(self, offset: int) -> Response:
        end = min(offset + PIECE, self._source.size)
        headers = {
            **VERSION,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        body = _Piece(self._source, offset, end, self._client, self._progress)
        return self._client.request("PATCH", self._url, headers=headers, data=body)


class _Piece:
    """Bytes of a file as the body of a request. It is read while it is sent, and ends when the
    transfer is stopped."""

    def __init__(
        self, source: SourceFile, start: int, end: int, client: Client, progress: FileProgress
    ):
        self._source, self._start, self._end = source, start, end
        self._client, self._progress = client, progress

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[bytes]:
        sent = self._start
        for chunk in self._source.chunks(self._start, self._end):
            self._client.go_on()
            yield chunk
            sent += len(chunk)
            self._progress.reach(sent)


def metadata(values: Mapping[str, str]) -> str:
    """Return the value of ``Upload-Metadata``.

    >>> metadata({"filename": "foo.txt"})
    'filename Zm9vLnR4dA=='
    """
    return ",".join(f"{key} {b64encode(text.encode()).decode()}" for key, text in values.items())
