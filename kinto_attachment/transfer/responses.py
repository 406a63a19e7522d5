"""Responses of a server, and the errors that they become."""

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from ..files.blob import CHUNK

TRY_AGAIN = {408, 409, 429, 502, 503, 504}
"""Statuses after which the same request may succeed later."""
REDIRECTED = {301, 302, 303, 307, 308}
ENDED = {400, 401, 403, 404, 410}
"""Statuses of a storage for a signed URL that has expired, or an object that was just replaced."""

LATER = "run it again: finished files are skipped"
REMEDIES = {
    401: "log in: --auth user:password, or --auth 'Bearer TOKEN'",
    403: "ask the owner of the collection for the permission",
    404: "check that the server, the bucket and the collection exist and are spelt correctly",
    500: "see the log of the server, and run kinto-attachment fsck there",
}
"""Remedies by status, or by the first status of a class."""


class TransferFailed(Exception):
    """One file could not be transferred. The other files are not affected.

    :param kind: the kind of the finding.
    :param detail: its detail.
    :param remedy: its remedy.
    """

    def __init__(self, kind: str, detail: str, remedy: str):
        super().__init__(detail)
        self.kind, self.detail, self.remedy = kind, detail, remedy


class TryAgain(TransferFailed):
    """A failure that may be temporary.

    :param after: seconds to wait before the next attempt; None if unknown.
    """

    def __init__(self, detail: str, after: float | None = None, kind: str = "unavailable"):
        super().__init__(kind, detail, LATER)
        self.after = after


class Stopped(Exception):
    """The caller has stopped the transfer."""


def check_response(response: requests.Response) -> requests.Response:
    """Return the response if its status is a success.

    :raises TransferFailed: if it is a redirect or an error.
    """
    status = response.status_code
    if status in REDIRECTED:
        location = response.headers.get("Location", "another URL")
        raise TransferFailed(
            "refused",
            f"{status}, redirected to {location}",
            "give the URL of the server with its version: .../v1",
        )
    if status >= 400:
        kind = "failed" if status >= 500 else "refused"
        remedy = REMEDIES.get(status) or REMEDIES.get(status // 100 * 100)
        raise TransferFailed(
            kind, reason(response), remedy or "correct what the server complains about"
        )
    return response


def reason(response: requests.Response) -> str:
    """Return the status and the error message of a response, in one line of at most 500
    characters."""
    try:
        text = next(response.iter_content(CHUNK), b"")
        message = json.loads(text)["message"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        message = response.reason
    return " ".join(f"{response.status_code} {message}".split())[:500]


def json_of(response: requests.Response) -> dict[str, Any]:
    """Return the JSON object in the body of a response.

    :raises TransferFailed: if the body is not a JSON object.
    """
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        remedy = "check that this is the URL of a Kinto server: .../v1"
        raise TransferFailed("failed", "the response is not from Kinto", remedy)
    return value


def retry_after(response: requests.Response) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3); None if there is no such
    header, or it is malformed."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def in_short(error: Exception) -> str:
    """Return the message of the innermost error, without the layers that urllib3 adds, in one line
    of at most 300 characters."""
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    return " ".join((str(getattr(error, "reason", "")) or str(error) or repr(error)).split())[:300]
