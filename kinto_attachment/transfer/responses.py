"""What a server answers, and what is to be made of it."""

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from ..files.blob import CHUNK

TRY_AGAIN = {408, 409, 429, 502, 503, 504}
REDIRECTED = {301, 302, 303, 307, 308}
# What a storage says of a signed URL that has ended, or of an object that was just replaced.
ENDED = {400, 401, 403, 404, 410}

LATER = "run it again: what is done is skipped"
REMEDIES = {
    401: "say who you are: --auth user:password, or --auth 'Bearer TOKEN'",
    403: "ask who owns the collection for the permission",
    404: "look whether server, bucket and collection are right, and there",
    500: "see the log of the server, and run kinto-attachment fsck there",
}


class TransferFailed(Exception):
    """One file could not be transferred; the others may.

    :param kind: of the finding, with ``detail`` and ``remedy``.
    """

    def __init__(self, kind: str, detail: str, remedy: str):
        super().__init__(detail)
        self.kind, self.detail, self.remedy = kind, detail, remedy


class TryAgain(TransferFailed):
    """It may go better the next time.

    :param after: seconds to wait, None if that is not known.
    """

    def __init__(self, detail: str, after: float | None = None, kind: str = "unavailable"):
        super().__init__(kind, detail, LATER)
        self.after = after


class Stopped(Exception):
    """Nobody waits for it any more."""


def check(response: requests.Response) -> requests.Response:
    """The same, if it is a success.

    :raises TransferFailed:
    """
    status = response.status_code
    if status in REDIRECTED:
        where = response.headers.get("Location", "somewhere else")
        raise TransferFailed(
            "refused",
            f"{status}, to {where}",
            "give the URL of the server with its version: .../v1",
        )
    if status >= 400:
        kind = "failed" if status >= 500 else "refused"
        remedy = REMEDIES.get(status) or REMEDIES.get(status // 100 * 100)
        raise TransferFailed(kind, reason(response), remedy or "change what the server objects to")
    return response


def reason(response: requests.Response) -> str:
    """What the server says of it, in one line."""
    try:
        text = next(response.iter_content(CHUNK), b"")
        message = json.loads(text)["message"]
    except (requests.RequestException, ValueError, LookupError, TypeError):
        message = response.reason
    return " ".join(f"{response.status_code} {message}".split())[:500]


def json_of(response: requests.Response) -> dict[str, Any]:
    """
    :raises TransferFailed: it is no JSON object.
    """
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        remedy = "look whether this is the URL of a Kinto server: .../v1"
        raise TransferFailed("failed", "the answer is none of Kinto's", remedy)
    return value


def retry_after(response: requests.Response) -> float | None:
    """Seconds (RFC 9110, section 10.2.3); None if it does not say."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def in_short(error: Exception) -> str:
    """Without what urllib3 wraps it in."""
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    return " ".join((str(getattr(error, "reason", "")) or str(error) or repr(error)).split())[:300]
