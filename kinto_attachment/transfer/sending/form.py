"""The form that a file is sent in."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import uuid4

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from ...files.blob import Digest
from ..client import Client
from ..pool import FileProgress
from .source import SourceFile


class Form:
    """The form of one upload (RFC 7578), read and hashed while it is sent, in constant memory. Its
    ``len()`` is the ``Content-Length``, in bytes.

    ``MultipartEncoder`` of requests-toolbelt is not used: if the file becomes shorter while it is
    sent, that encoder still closes the form, and the server stores part of a file.

    :param file: the file, at its start.
    :param name: the name of the file; what is before its last slash is not sent.
    :param fields: the text fields, which come before the file.
    :param file_field: the name of the field with the file.
    :ivar size: bytes of the file.
    :ivar digest: of the bytes that were read so far.
    :ivar content_type: the ``Content-Type`` of the request.
    :raises TransferFailed: while it is iterated over, if the file was changed. The closing boundary
        is missing then, so the server refuses the form.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        fields: Mapping[str, str],
        file_field: str = "attachment",
    ):
        self._source = SourceFile(file)
        self.size = self._source.size
        self.digest = Digest()
        boundary = uuid4().hex
        parts: list[Any] = [*fields.items(), _file_part(file_field, PurePosixPath(name).name)]
        empty, self.content_type = encode_multipart_formdata(parts, boundary)
        self._end = f"\r\n--{boundary}--\r\n".encode()
        self._start = empty.removesuffix(self._end)

    def __len__(self) -> int:
        return len(self._start) + self.size + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._start
        for chunk in self._source.chunks(0, self.size):
            self.digest.update(chunk)
            yield chunk
        self._source.check_unchanged()
        yield self._end


class ProgressForm:
    """A form that reports how many bytes were sent, and ends when the transfer is stopped."""

    def __init__(self, form: Form, client: Client, progress: FileProgress):
        self._form, self._client, self._progress = form, client, progress

    def __len__(self) -> int:
        return len(self._form)

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self._form:
            self._client.go_on()
            yield chunk
            self._progress.add_bytes(self._form.digest.size - sent)
            sent = self._form.digest.size


def _file_part(field: str, name: str) -> RequestField:
    """Return the part of a form with the file, without its bytes.

    A form has ``%22`` for a quote in a name and ``%0A`` for a line break, but leaves a percent sign
    as it is, and servers cut off what looks like a folder of Windows. Such a name is therefore sent
    as ``filename*``, too, which this server prefers; RFC 7578 does not want it for other names.
    """
    part = RequestField.from_tuples(field, (name, b""))
    if "%" in name or "\\" in name:
        part.headers["Content-Disposition"] += f"; filename*=UTF-8''{quote(name, safe='')}"
    return part
