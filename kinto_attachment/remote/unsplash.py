"""Photos of Unsplash, by its API (https://unsplash.com/documentation).

Whoever uses a photo has to tell Unsplash (https://help.unsplash.com/en/articles/2511258), to name
its author, and to link to both.
"""

import re
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import RemoteFailed, RemoteLimited, RemoteNotFound, SettingError
from ..settings import PREFIX, Settings
from . import Answer, Fetched, Origin, fetch, get_json, retry_after

# The address of a photo's page ends in its slug: words and the id, which has 11 characters.
_SLUG = re.compile(r"[A-Za-z0-9_-]{1,255}-([A-Za-z0-9_-]{11})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[!-~]+")
_MAX_SIDE = 1_000_000


@dataclass(frozen=True)
class Photo:
    """What Unsplash knows of a photo.

    :param author: their name.
    :param description: as the author has it; empty if not at all, as ``alt`` may be.
    :param width: pixels, as ``height``, of the image at ``url``.
    :param download_location: where the API wants to be told that it is used.
    :param url: of the image, a JPEG in its full size.
    """

    id: str
    author: str
    description: str
    alt: str
    width: int
    height: int
    download_location: str
    url: str

    @classmethod
    def from_json(cls, data: Any) -> "Photo":
        """
        :raises RemoteFailed: something is missing, or of the wrong type.
        """
        return cls(
            id=_text(data, "id"),
            author=_text(data, "user", "name"),
            description=_text(data, "description", optional=True),
            alt=_text(data, "alt_description", optional=True),
            width=_pixels(data, "width"),
            height=_pixels(data, "height"),
            download_location=_url(data, "links", "download_location"),
            url=_url(data, "urls", "full"),
        )


class Unsplash:
    """
    :param api_url: of the API. Its origin is asked wherever it is, every other host only on
        the public Internet.
    :param key: the access key of an application. It is sent to that origin and nowhere else.
    :param max_size: bytes of an image; 0 for any.
    :param timeout: seconds that an image may be silent, and that an answer of the API may take.
    :param deadline: seconds that an image may take.
    :raises ValueError: no such URL or key can be.

    ::

        photo = unsplash.photo("Dwu85P9SOIk")
        fetched = unsplash.download(photo, file)
    """

    def __init__(
        self, api_url: str, key: str, max_size: int, timeout: float, deadline: float = 60.0
    ) -> None:
        if not _KEY.fullmatch(key):
            raise ValueError("the key of Unsplash is empty, or has characters that none has")
        try:
            self._origin = Origin.of(api_url)
        except RemoteFailed as error:
            raise ValueError(f"the URL of the API of Unsplash is {error}") from error
        self._api_url = api_url.rstrip("/")
        self._headers = {"Authorization": f"Client-ID {key}", "Accept-Version": "v1"}
        self._max_size = max_size
        self._timeout = timeout
        self._deadline = deadline

    def photo(self, id: str) -> Photo:
        """What there is to know of a photo.

        :param id: its id, or the slug of its page.
        :raises RemoteNotFound: there is none, or there cannot be one.
        :raises RemoteLimited: with the seconds to wait.
        :raises RemoteTimeout:
        :raises RemoteFailed: the API refuses the key, or answers what it should not.
        """
        id = read_id(id)
        photo = Photo.from_json(self._ask(f"{self._api_url}/photos/{id}").json())
        if photo.id != id:
            raise RemoteFailed(f"{self._origin.host} answers with another photo")
        return photo

    def download(self, photo: Photo, into: BinaryIO) -> Fetched:
        """Tell Unsplash that the photo is used, and write its image to a file; see
        :func:`~kinto_attachment.remote.fetch`.

        :raises: as :meth:`photo` and :func:`~kinto_attachment.remote.fetch`.
        """
        self._ask(photo.download_location)
        fetched = fetch(
            photo.url,
            into,
            max_size=self._max_size,
            timeout=self._timeout,
            deadline=self._deadline,
            allowed=frozenset({self._origin}),
            mimetype="image/",
        )
        if not fetched.digest.size:
            raise RemoteFailed(f"{Origin.of(photo.url).host} sends an empty image")
        return fetched

    def _ask(self, url: str) -> Answer:
        if Origin.of(url) != self._origin:
            raise RemoteFailed(f"{self._origin.host} leads to another API")
        answer = get_json(
            url,
            self._headers,
            timeout=self._timeout,
            deadline=self._timeout,
            allowed=frozenset({self._origin}),
        )
        if answer.status == 404:
            raise RemoteNotFound(f"{answer.host} has no such photo")
        if _is_limited(answer):
            seconds = retry_after(answer.headers)
            raise RemoteLimited(
                f"{answer.host} was asked too often", _next_hour() if seconds is None else seconds
            )
        if answer.status == 401:
            raise RemoteFailed(f"{answer.host} refuses the key")
        if answer.status != 200:
            raise RemoteFailed(f"{answer.host} answers {answer.status}")
        return answer


def open_unsplash(settings: Settings) -> Unsplash | None:
    """The client that the settings ask for, if they do.

    :raises SettingError: they are wrong.
    """
    key, seconds = settings["unsplash.access_key"], settings["unsplash.timeout"]
    if not key:
        return None
    try:
        return Unsplash(
            settings["unsplash.api_url"], key, settings["unsplash.max_size"], seconds / 3, seconds
        )
    except ValueError as error:
        raise SettingError(f"{PREFIX}unsplash.access_key", str(error)) from error


def read_id(text: str) -> str:
    """The id in what names a photo.

    :raises RemoteNotFound: no photo can have it.

    >>> read_id("a-dog-on-a-beach-Dwu85P9SOIk"), read_id("Dwu85P9SOIk")
    ('Dwu85P9SOIk', 'Dwu85P9SOIk')
    """
    slug = _SLUG.fullmatch(text)
    if slug:
        return slug[1]
    if not _ID.fullmatch(text) or text == "random":  # /photos/random is any of them
        raise RemoteNotFound("not an id of a photo")
    return text


def _is_limited(answer: Answer) -> bool:
    """Until some day, and in the documentation, it was a 403 with a text that is no JSON."""
    spent = answer.headers.get("X-Ratelimit-Remaining", "").strip() == "0"
    said = b"rate limit exceeded" in answer.body.lower()
    return answer.status == 429 or (answer.status == 403 and (spent or said))


def _next_hour() -> int:
    """Seconds until Unsplash counts from zero."""
    return 3600 - int(time.time()) % 3600


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _text(data: Any, *path: str, optional: bool = False) -> str:
    value = _at(data, path)
    if value is None and optional:
        return ""
    # What JSON can hold and neither UTF-8 nor PostgreSQL: half a surrogate pair, and NUL.
    if not isinstance(value, str) or re.search("[\0\ud800-\udfff]", value):
        raise RemoteFailed(f"the photo has no {'.'.join(path)}")
    return value


def _url(data: Any, *path: str) -> str:
    value = _text(data, *path)
    try:
        Origin.of(value)
    except RemoteFailed as error:
        raise RemoteFailed(f"the {'.'.join(path)} of the photo is {error}") from error
    return value


def _pixels(data: Any, *path: str) -> int:
    value = _at(data, path)
    if type(value) is not int or not 0 < value <= _MAX_SIDE:
        raise RemoteFailed(f"the photo has no {'.'.join(path)}")
    return value
