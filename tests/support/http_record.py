"""A record with a file, as a client of a running server sees it."""

import re
import secrets
from email import message_from_bytes

import requests

ALICE, BOB = ("alice", "secret"), ("bob", "secret")
CONTENT = secrets.token_bytes(1_000_003)
"""Random bytes that fill more than three chunks."""


class HTTPRecord:
    """The record ``r`` of a new collection. It has a file once :meth:`upload` was called.

    :param field: the field that the file is in.
    :ivar path: where the file is served, below the record.
    """

    def __init__(self, server, field="attachment"):
        self.server = server
        self.field = field
        self.path = field if field == "attachment" else f"attachments/{field}"
        self.bucket = f"{server.url}/buckets/b{secrets.token_hex(8)}"
        self.collection = f"{self.bucket}/collections/c"
        self.record = f"{self.collection}/records/r"
        self.url = f"{self.record}/{self.path}"
        for parent in (self.bucket, self.collection):
            requests.put(parent, auth=ALICE, timeout=60).raise_for_status()

    def upload(self, content=CONTENT, filename="file.bin", mimetype="application/octet-stream"):
        """Upload a file to the record; return the attachment."""
        form = {self.field: (filename, content, mimetype)}
        response = requests.post(self.url, files=form, auth=ALICE, timeout=60)
        response.raise_for_status()
        return response.json()

    def get(self, *, auth=ALICE, query="", method="GET", **headers):
        """Request the file; return the response.

        :param headers: header names with underscores, such as ``If_Match``.
        """
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.request(
            method,
            self.url + query,
            auth=auth,
            headers={"Accept-Encoding": "identity", **headers},
            timeout=60,
            allow_redirects=False,
        )

    def share(self, *principals, uri=None, permission="read"):
        """Grant a permission on the record, or on the object at another URI."""
        body = {"permissions": {permission: list(principals)}}
        response = requests.patch(uri or self.record, json=body, auth=ALICE, timeout=60)
        response.raise_for_status()


def parts_of(response) -> list[tuple[str, str, bytes]]:
    """Return ``(Content-Type, Content-Range, bytes)`` of each part of a multipart response."""
    kind = response.headers["Content-Type"]
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", kind)[1].encode()
    prologue, *parts, epilogue = response.content.split(b"\r\n--" + boundary)
    assert (prologue, epilogue) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        message = message_from_bytes(head)
        found.append((message["Content-Type"], message["Content-Range"], body))
    return found
