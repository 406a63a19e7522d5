"""Responses of a server, and the errors that they become."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.exceptions import IncompleteRead
from urllib3.exceptions import TimeoutError as TimeoutErrorOfPool

from ..errors import CommandFailed
from ..files.blob import CHUNK

TRY_AGAIN = {408, 409, 429, 502, 503, 504}
"""Statuses after which the same request may succeed later."""
REDIRECTED = {301, 302, 303, 307, 308}
ENDED = {400, 401, 403, 404, 410}
"""Statuses of a storage for a signed URL that has expired, or an object that was just replaced."""

TIMEOUTS = (TimeoutError, requests.Timeout, TimeoutErrorOfPool)

LATER = "run it again: finished files are skipped"
REMEDIES = {
    400: "change the file, or ask the operator of the server to accept such files",
    403: "ask the owner of the collection for the permission",
    404: "run it again if it was deleted meanwhile; declare fields in the settings of the server",
    500: "ask the operator of the server to look into its log",
}
"""Remedies by status, or by the first status of a class."""


LOGIN = "give --auth USER:PASSWORD or --auth 'Bearer TOKEN', or set KINTO_AUTH"


class TransferFailed(Exception):
    """One file could not be transferred. The other files are not affected.

    :param kind: the kind of the finding.
    :param detail: its detail.
    :param remedy: its remedy.
    """

    def __init__(self, kind: str, detail: str, remedy: str):
        super().__init__(detail)
        self.kind, self.detail, self.remedy = kind, detail, remedy


class Forbidden(TransferFailed):
    """The user may not do this."""


class PreconditionFailed(TransferFailed):
    """The record is not as the client expects it to be: another client has changed it."""


class TryAgain(TransferFailed):
    """A failure that may be temporary.

    :param after: seconds to wait before the next attempt; None if unknown.
    """

    def __init__(self, detail: str, after: float | None = None, kind: str = "unavailable"):
        super().__init__(kind, detail, LATER)
        self.after = after


FAILURES = {403: Forbidden, 412: PreconditionFailed}
"""Errors of their own, by status."""


class Stopped(Exception):
    """The caller has stopped the transfer."""


def check_response(response: requests.Response) -> requests.Response:
    """Return the response if its status is a success.

    :raises TransferFailed: if it is an error; of a kind of its own for 403 and 412.
    :raises CommandFailed: if it is one that every other file would get too: a redirect, or a 401.
    """
    status = response.status_code
    if status in REDIRECTED:
        location = response.headers.get("Location", "another URL")
        raise CommandFailed(f"The server redirects to {location}: give that server as --server")
    if status == 401:
        raise CommandFailed(f"The server wants to know who you are: {LOGIN}")
    if status >= 400:
        kind = "failed" if status >= 500 else "refused"
        remedy = REMEDIES.get(status) or REMEDIES[status // 100 * 100]
        failure = FAILURES.get(status, TransferFailed)
        raise failure(kind, reason(response), remedy)
    return response


def reason(response: requests.Response) -> str:
    """Return the status and the error message of a response, in one line of at most 500
    characters."""
    try:
        answer = json.loads(next(response.iter_content(CHUNK), b""))
        message = str(answer["message"])
        details = answer.get("details")
        if isinstance(details, list) and details:
            description = str(details[0].get("description") or "")
            # The list of all that is accepted would hide what is wrong.
            description = description.partition("; accepted are ")[0].rstrip(".")
            message = message if description in message else f"{message} {description}."
    except (requests.RequestException, ValueError, LookupError, TypeError, AttributeError):
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


def in_short(error: BaseException) -> str:
    """Return why a connection failed, in one line of at most 300 characters, without the names of
    the classes of requests and urllib3."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection: {cause.reason or cause}".lower().replace("_", " ")
        if isinstance(cause, socket.gaierror):
            return "there is no host of that name"
        if isinstance(cause, IncompleteRead):
            return "the connection was closed too early"
    told = [each.strerror for each in causes if isinstance(each, OSError) and each.strerror]
    if not told and any(isinstance(each, TIMEOUTS) for each in causes):
        return "it does not respond in time"
    text = told[0] if told else str(causes[-1]) or "the connection was closed"
    return " ".join(text.split())[:300]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what has caused it, which requests and urllib3 keep in several places."""
    seen: list[BaseException] = []
    left = [error]
    while left:
        error = left.pop(0)
        if error in seen:
            continue
        seen.append(error)
        yield error
        inner = (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__)
        left += [each for each in inner if isinstance(each, BaseException)]
