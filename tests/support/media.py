"""The media store of a site, as the tests use it."""

import secrets
from hashlib import sha256

from kinto_attachment.media.verifier import Verifier
from tests.support.site import ALICE, Site

PUBLIC = {"kinto.media_read_principals": "system.Everyone"}
JSON = {"Accept": "application/json"}


class MediaClient:
    """A client of the media store of a site, which can also look into the storage."""

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
        """Verify all pending uploads, as the background thread does; return the finding kinds."""
        registry = self.site.registry
        job = Verifier(registry.attachment_plugin, registry.attachment_verifications)
        return [finding.kind for finding in job.verify()]

    def keys(self, digest):
        """Return the keys of the verified bytes with this hash."""
        return [stat.key for stat in self.site.storage.list() if stat.key.endswith(digest)]

    def pending(self):
        """Return the keys of the bytes that are not verified yet."""
        prefix = "private/_media-pending/"
        return [stat.key for stat in self.site.storage.list(prefix)]


def random_content(size=100):
    """Return random bytes and their hash."""
    content = secrets.token_bytes(size)
    return content, sha256(content).hexdigest()
