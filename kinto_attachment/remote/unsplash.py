"""A client of the Unsplash API (https://unsplash.com/documentation).

An application that uses a photo must report that to Unsplash
(https://help.unsplash.com/en/articles/2511258), name the author of the photo, and link to both.
"""

import re
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import RemoteFailed, RemoteLimited, RemoteNotFound, SettingError
from ..settings import Settings
from ..settings.setting import INI_PREFIX
from . import Answer, Fetched, Origin, fetch, get_json, retry_after

# The URL of the page of a photo ends with a slug: some words, and the id of 11 characters.
_SLUG = re.compile(r"[A-Za-z0-9_-]{1,255}-([A-Za-z0-9_-]{11})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[!-~]+")
_MAX_SIDE = 1_000_000


@dataclass(frozen=True)
class Photo:
    """The metadata of a photo.

    :param author: the name of the author.
    :param description: the description by the author; empty if there is none.
    :param alt: the alternative text; empty if there is none.
    :param width: width of the image in pixels.
    :param height: height of the image in pixels.
    :param download_location: the URL of the API at which the use of the photo is reported.
    :param url: the URL of the image, a JPEG in full size.
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
        """Return the photo that a response of the API describes.

        :raises RemoteFailed: if a field is missing or of the wrong type.
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
    """A client of the Unsplash API.

    :param api_url: the URL of the API. Its origin may have any address; all other hosts must be on
        the public Internet.
    :param key: the access key of the application. It is sent to that origin only.
    :param max_size: the largest number of bytes of an image; 0 for no limit.
    :param timeout: seconds that the server of an image may be silent, and that a response of the
        API may take.
    :param deadline: seconds that an image may take.
    :raises ValueError: if ``api_url`` or ``key`` is malformed.

    ::

        photo = unsplash.photo("Dwu85P9SOIk")
        fetched = unsplash.download(photo, file)
    """

    def __init__(
        self, api_url: str, key: str, max_size: int, timeout: float, deadline: float = 60.0
    ) -> None:
        if not _KEY.fullmatch(key):
            raise ValueError("the access key of Unsplash is empty or has invalid characters")
        try:
            self._origin = Origin.of(api_url)
        except RemoteFailed as error:
            raise ValueError(f"the URL of the Unsplash API is {error}") from error
        self._api_url = api_url.rstrip("/")
        self._headers = {"Authorization": f"Client-ID {key}", "Accept-Version": "v1"}
        self._max_size = max_size
        self._timeout = timeout
        self._deadline = deadline

    def photo(self, id: str) -> Photo:
        """Return the metadata of a photo.

        :param id: the id of the photo, or the slug of its page.
        :raises RemoteNotFound: if there is no such photo, or ``id`` is malformed.
        :raises RemoteLimited: if the rate limit is exceeded, with the seconds to wait.
        :raises RemoteTimeout: if the API does not respond in time.
        :raises RemoteFailed: if the API refuses the key, or its response is invalid.
        """
        id = read_id(id)
        photo = Photo.from_json(self._ask(f"{self._api_url}/photos/{id}").json())
        if photo.id != id:
            raise RemoteFailed(f"{self._origin.host} answered with another photo")
        return photo

    def download(self, photo: Photo, into: BinaryIO) -> Fetched:
        """Report to Unsplash that the photo is used, then write its image to a file.

        It raises the exceptions of :meth:`photo` and :func:`~kinto_attachment.remote.fetch`.

        :param into: the file, open for writing.
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
            raise RemoteFailed(f"{Origin.of(photo.url).host} sent an empty image")
        return fetched

    def _ask(self, url: str) -> Answer:
        if Origin.of(url) != self._origin:
            raise RemoteFailed(f"{self._origin.host} answered with the URL of another API")
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
                f"{answer.host} is rate limited", _next_hour() if seconds is None else seconds
            )
        if answer.status == 401:
            raise RemoteFailed(f"{answer.host} refused the access key")
        if answer.status != 200:
            raise RemoteFailed(f"{answer.host} answered with status {answer.status}")
        return answer


def open_unsplash(settings: Settings) -> Unsplash | None:
    """Return the client that the settings configure; None if there is no access key.

    :raises SettingError: if the settings are malformed.
    """
    key, seconds = settings["unsplash.access_key"], settings["unsplash.timeout"]
    if not key:
        return None
    if not _KEY.fullmatch(key):
        raise SettingError(
            f"{INI_PREFIX}unsplash.access_key", "may only contain visible ASCII characters"
        )
    try:
        return Unsplash(
            settings["unsplash.api_url"], key, settings["unsplash.max_size"], seconds / 3, seconds
        )
    except ValueError as error:
        raise SettingError(f"{INI_PREFIX}unsplash.api_url", str(error)) from error


def read_id(text: str) -> str:
    """Return the id of a photo, given the id or the slug of its page.

    :raises RemoteNotFound: if it is neither.

    >>> read_id("a-dog-on-a-beach-Dwu85P9SOIk"), read_id("Dwu85P9SOIk")
    ('Dwu85P9SOIk', 'Dwu85P9SOIk')
    """
    slug = _SLUG.fullmatch(text)
    if slug:
        return slug[1]
    if not _ID.fullmatch(text) or text == "random":  # /photos/random returns any photo
        raise RemoteNotFound("not the id of a photo")
    return text


def _is_limited(answer: Answer) -> bool:
    """Return whether the rate limit is exceeded. According to the documentation, the status is 403
    and the body is plain text; the API itself also answers 429."""
    is_spent = answer.headers.get("X-Ratelimit-Remaining", "").strip() == "0"
    is_named = b"rate limit exceeded" in answer.body.lower()
    return answer.status == 429 or (answer.status == 403 and (is_spent or is_named))


def _next_hour() -> int:
    """Return the seconds until Unsplash resets its rate limit, at the next full hour."""
    return 3600 - int(time.time()) % 3600


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _text(data: Any, *path: str, optional: bool = False) -> str:
    value = _at(data, path)
    if value is None and optional:
        return ""
    # JSON may contain lone surrogates and NUL; UTF-8 or PostgreSQL cannot store them.
    if not isinstance(value, str) or re.search("[\0\ud800-\udfff]", value):
        raise RemoteFailed(f"the photo has no valid {'.'.join(path)}")
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
        raise RemoteFailed(f"the photo has no valid {'.'.join(path)}")
    return value
