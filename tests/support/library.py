"""The media library of a site, as the tests use it."""

from io import BytesIO

import transaction
from PIL import Image

from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from tests.support.site import ALICE, Site


def settings(bucket: str, **more: str) -> dict[str, str]:
    """Of a site with a library in that bucket."""
    return {"kinto.attachment.library.bucket": bucket, **more}


def jpeg(width: int = 120, height: int = 80, orientation: int = 1) -> bytes:
    """A photo of one colour; turned by its camera."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.new("RGB", (width, height), (200, 30, 30)), "JPEG", exif=exif)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


class Shelf:
    """The library, and what an editor does there.

    :param site: with the settings of a library.
    """

    def __init__(self, site: Site, editors=("system.Authenticated",), readers=("system.Everyone",)):
        self.site, self.http = site, site.http
        self.library = site.registry.attachment_library
        self.server = Server.of(site.registry, transaction.manager)
        self.findings = list(
            init_library(
                self.server,
                self.library,
                site.registry.permission,
                editors=list(editors),
                authors=[],
                readers=list(readers),
            )
        )

    def upload(self, content=None, filename="photo.jpg", headers=ALICE, status=201, **fields):
        """Step one; the answer."""
        content = jpeg() if content is None else content
        mimetype, body = self.http.encode_multipart(
            list(fields.items()), [("file", filename, content)]
        )
        headers = {**headers, "Content-Type": mimetype}
        return self.http.post("/media", body, headers=headers, status=status).json

    def describe(self, facts: dict, headers=ALICE, status=201, **more):
        """Step two; the answer."""
        return self.http.post_json(
            "/content/_media", {**facts, **more}, headers=headers, status=status
        ).json

    def add(self, content=None, filename="photo.jpg", **more) -> dict:
        """Both; the object."""
        return self.describe(self.upload(content, filename), **more)["data"]

    def get(self, path: str, status=200, **options):
        return self.http.get(f"/{path}", status=status, **options)

    @property
    def keys(self) -> list[str]:
        """Of all files of the site."""
        return sorted(stat.key for stat in self.site.storage.list())

    @property
    def waiting(self) -> list[str]:
        """Ids of what nobody has described yet."""
        uploads = self.site.rows.unclaimed
        return [each.id for each in self.site.in_transaction(lambda: list(uploads.all()))]
