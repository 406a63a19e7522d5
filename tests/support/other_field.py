"""Running the tests of ``attachment`` with a field of another name.

A test speaks of ``attachment``, and its server has the field ``cover`` instead: what the test sends
is translated, and so is what the server answers. The two names change places, so that a server that
says ``attachment`` where it should say ``cover`` fails the test.
"""

import re
from functools import partial
from io import BytesIO
from typing import Any

import pytest
import webob

OWN, OTHER = FIELD_NAMES = "attachment", "cover"

_NAMES = {OWN: OTHER, OTHER: OWN, OWN.capitalize(): "Cover", "Cover": OWN.capitalize()}
_NAME = rf"({OWN}|{OTHER})"
_WORDS = re.compile(
    rf'(?<="){_NAME}(?="\s*:)'  # an attribute of a record
    rf'|(?<="/data/){_NAME}(?=[/"])'  # in a JSON patch
    rf'|(?<="name":"){_NAME}(?=")|(?<="name": "){_NAME}(?=")'  # what is wrong with a request
    rf"|(?<=body: '){_NAME}(?=' is not )|(?<=No ){_NAME}(?= on this record)"
    rf"|(?<=Only one ){_NAME}(?= is allowed)|(?i:{_NAME})(?= missing\.)"
)
_PATHS = {OWN: f"attachments/{OTHER}", f"attachments/{OTHER}": OWN}
_PATH = re.compile(rf"(/records/[^/\"?\s]*/)(attachments/{OTHER}|{OWN})(?=[/\"?\s]|$)")
_DATA = re.compile(rb'(name="?data"?.*?\r\n\r\n)(.*?)(?=\r\n--)', re.DOTALL)
_SMALL_BYTES = 65536


@pytest.fixture(scope="module", params=FIELD_NAMES)
def field_name(request):
    """The name of the field that the servers of a test have."""
    return request.param


@pytest.fixture
def make_site(make_site, field_name):
    return _with(make_site, field_name)


@pytest.fixture
def make_server(make_server, field_name):
    return _with(make_server, field_name)


def _with(make, field_name):
    return make if field_name == OWN else partial(make, field=field_name)


class OtherField:
    """A WSGI application as a client sees it that calls the field :data:`OTHER` ``attachment``.

    :param wsgi: the application.
    """

    def __init__(self, wsgi: Any):
        self._wsgi = wsgi

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        request = webob.Request({**environ, "PATH_INFO": _swap_paths(environ["PATH_INFO"])})
        _translate_body(request)
        response = request.get_response(self._wsgi)
        if "Location" in response.headers:
            response.headers["Location"] = _swap_paths(response.headers["Location"])
        is_file = _PATH.search(environ["PATH_INFO"]) and request.method == "GET"
        is_error = response.status_code >= 400
        if response.content_type == "application/json" and (is_error or not is_file):
            response.body = _swap(response.body)
        return response(environ, start_response)


def _translate_body(request: webob.Request) -> None:
    """Translate JSON, and the JSON in a form; leave files as they are."""
    kind = request.environ.get("CONTENT_TYPE", "").lower()
    if "json" in kind:
        request.body = _swap(request.body)
        return
    # A body that is large or no bytes in memory may be a test of how one is read.
    stream = request.environ["wsgi.input"]
    length = request.environ.get("CONTENT_LENGTH") or ""
    is_in_memory = isinstance(getattr(stream, "input", stream), BytesIO)
    is_small = length.isdigit() and int(length) <= _SMALL_BYTES
    if kind.startswith("multipart/") and is_in_memory and is_small:
        body = stream.read(int(length))
        translated = _DATA.sub(lambda match: match[1] + _swap(match[2]), body)
        request.environ["wsgi.input"] = BytesIO(translated)
        if translated != body:
            request.environ["CONTENT_LENGTH"] = str(len(translated))


def _swap(text: bytes) -> bytes:
    try:
        decoded = _swap_paths(text.decode())
    except UnicodeDecodeError:
        return text
    return _WORDS.sub(lambda match: _NAMES[match[0]], decoded).encode()


def _swap_paths(text: str) -> str:
    return _PATH.sub(lambda match: match[1] + _PATHS[match[2]], text)
