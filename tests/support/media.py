"""The media store of a site, as the tests use it."""

import secrets
from hashlib import sha256

from kinto_attachment.media.verifier import Verifier
from tests.support.site import ALICE, Site

PUBLIC = {"kinto.media_read_principals": "system.Everyone"}
JSON = {"Accept": "application/json"}


class MediaClient:
    """The media store of a site, over HTTP, and a look into its storage."""

    def __init__(self, site: Site):
        self.site = site
        self.http = site.http

    def post(self, content, digest="", headers=ALICE, query="", **options):
        path = f"/media/{digest}{query}" if digest else f"/media{query}"
        return self.http.post(path, content, headers={**headers}, **options)

    def get(self, digest, headers=ALICE, **options):
        return self.http.get(f"/media/{digest}", headers={**headers}, **options)

    def delete(self, digest, headers=ALICE, **options):
        return self.http.delete(f"/media/{digest}", headers={**headers}, **options)

    def stat(self, hashes, headers=ALICE, **options):
        return self.http.post_json("/media/stat", hashes, headers={**headers}, **options)

    def verify(self):
        """Verify what is pending, as the background does; return the kinds of the findings."""
        registry = self.site.registry
        job = Verifier(registry.attachment_media, lambda: registry.metrics)
        return [finding.kind for finding in job.verify()]

    def keys(self, digest):
        """Return the keys of the verified bytes of a hash."""
        return [stat.key for stat in self.site.storage.list() if stat.key.endswith(digest)]

    def pending(self):
        """Return the keys of the bytes that are not verified yet."""
        prefix = "private/_media-pending/"
        return [stat.key for stat in self.site.storage.list(prefix)]


def random_content(size=100):
    """Return random bytes and their hash."""
    content = secrets.token_bytes(size)
    return content, sha256(content).hexdigest()
