"""The media library of a site, as the tests use it."""

import transaction
from PIL import Image

from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from tests.support import images
from tests.support.site import ALICE, Site


def settings(bucket: str, **more: str) -> dict[str, str]:
    """Return the settings of a site whose library is in the bucket."""
    return {"kinto.attachment.library.bucket": bucket, **more}


def jpeg(width: int = 120, height: int = 80, orientation: int = 1) -> bytes:
    """Return a photo of one colour, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return images.encode(Image.new("RGB", (width, height), (200, 30, 30)), "JPEG", exif=exif)


def field_of(answer: dict) -> str:
    """Return the name of the field that an error response is about."""
    return answer["details"][0]["name"]


class MediaLibrary:
    """The media library of a site, as an editor uses it.

    :param site: a site with the settings of a library.
    :param editors: the principals that may add media.
    :param readers: the principals that may read media.
    :ivar findings: the findings of ``library init``.
    """

    def __init__(self, site: Site, editors=("system.Authenticated",), readers=("system.Everyone",)):
        self.site, self.http = site, site.http
        self.uri = site.registry.attachment_library.uri
        self.server = Server.of(site.registry, transaction.manager)
        self.findings = list(
            init_library(
                self.server,
                site.registry.attachment_library,
                site.registry.permission,
                editors=list(editors),
                authors=[],
                readers=list(readers),
            )
        )

    def upload(self, content=None, filename="photo.jpg", headers=ALICE, status=201, **fields):
        """Upload a file; return the JSON of the response: facts about the file, or an error."""
        content = jpeg() if content is None else content
        mimetype, body = self.http.encode_multipart(
            list(fields.items()), [("file", filename, content)]
        )
        headers = {**headers, "Content-Type": mimetype}
        return self.http.post("/media", body, headers=headers, status=status).json

    def describe(self, facts: dict, headers=ALICE, status=201, **more):
        """Create an object from an upload; return the JSON of the response."""
        return self.http.post_json(
            "/content/_media", {**facts, **more}, headers=headers, status=status
        ).json

    def add(self, content=None, filename="photo.jpg", **more) -> dict:
        """Upload a file and create an object from it; return the object."""
        return self.describe(self.upload(content, filename), **more)["data"]

    def get(self, path: str, status=200, **options):
        return self.http.get(f"/{path}", status=status, **options)

    @property
    def keys(self) -> list[str]:
        """The keys of all files of the site."""
        return self.site.keys

    @property
    def waiting(self) -> list[str]:
        """The ids of the uploads that are not described yet."""
        uploads = self.site.rows.unclaimed
        return [each.id for each in self.site.in_transaction(lambda: list(uploads.all()))]
