"""Asking a server whether it would accept a file, without storing anything.

The server decides by collection which extensions it accepts, and tells clients only what applies in
general. A dry run therefore sends it a form like that of the upload, without the bytes of the file,
and with a field that no form may have. The server checks the permission and the extension first,
and then refuses the form for that field. Files with the same extension that would go to the same
field of new records have the same answer, so one request is enough for them. Each record that
exists has permissions of its own, and takes a request of its own.

The rules for names are the same for all servers, so they are checked here.

What a collection allows for sizes cannot be asked, so the general limit stands for it. Whether the
bytes fit their media type, only the upload itself can tell.
"""

import os
from pathlib import PurePosixPath
from threading import Lock

from urllib3.filepost import encode_multipart_formdata

from ..errors import FilenameRefused
from ..files.filename import accept_filename, checked_extension
from .client import Client
from .responses import REMEDIES, TransferFailed, check_response, reason
from .server_info import ServerInfo

UNKNOWN_FIELD = "dry-run"
"""The name of the field for which the server refuses the form."""


class Trial:
    """The questions of one dry run.

    :param file_field: the name of the field with the file.
    """

    def __init__(self, client: Client, info: ServerInfo, file_field: str = "attachment"):
        self._client, self._info, self._file_field = client, info, file_field
        self._answers: dict[tuple[str, str], str] = {}
        self._lock = Lock()

    def check(self, url: str, path: str, name: str, exists: bool = False, field: str = "") -> None:
        """Ask for one file.

        :param url: where it would be sent to.
        :param path: where it is.
        :param name: its name.
        :param exists: whether the record at the URL exists.
        :param field: the field of the record, if the files of this run go to several.
        :raises TransferFailed: if it would be refused.
        """
        try:
            extension = checked_extension(accept_filename(PurePosixPath(name).name))
        except FilenameRefused as error:
            raise TransferFailed("refused", str(error), REMEDIES[400]) from error
        detail = self._ask(url, extension) if exists else self._ask_once(url, extension, field)
        size, limit = os.path.getsize(path), self._info.max_size
        if not detail and limit and size > limit:
            detail = f"{size} bytes are more than the {limit} that the server accepts in general"
        if detail:
            raise TransferFailed("refused", detail, REMEDIES[400])

    def _ask_once(self, url: str, extension: str, field: str) -> str:
        """Return what the server says about the extension in a field of a new record."""
        with self._lock:
            key = extension, field
            if key not in self._answers:
                self._answers[key] = self._ask(url, extension)
            return self._answers[key]

    def _ask(self, url: str, extension: str) -> str:
        """Return why the server would refuse the extension; empty if it would not."""
        accepted = self._info.extensions
        if not self._info.can_be_asked or self._client.is_missing:
            is_refused = accepted is not None and extension not in accepted
            return f"the extension {extension!r} is not allowed" if is_refused else ""
        name = f"file.{extension}" if extension else "file"
        parts = [(UNKNOWN_FIELD, ""), (self._file_field, (name, b""))]
        form, content_type = encode_multipart_formdata(parts)
        headers = {"Content-Type": content_type}
        response = self._client.persist(
            lambda: self._client.request("POST", url, headers=headers, data=form)
        )
        if response.status_code == 400:
            told = reason(response)
            return "" if repr(UNKNOWN_FIELD) in told else told
        check_response(response)
        return ""
