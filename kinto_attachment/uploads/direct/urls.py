"""The URLs to which a client sends the parts of a direct upload.

They are signed by the storage if it can do that. Otherwise they lead to this server, and are signed
with the secret of the upload: a client that has such a URL may send that part until it expires.
"""

import hmac
import time

from pyramid.request import Request

from ...errors import SignatureRefused
from ...files.blob import Label
from ...files.ref import read_ref
from ...http.requests import is_decimal
from ...plugin import Plugin, plugin_of
from ...rows.uploads import DirectUpload
from ...storage.staged import SignedPut, sign_put

PART_ROUTE = "direct-part"
"""The name of the service that receives parts."""


def expires_at(plugin: Plugin, upload: DirectUpload) -> float:
    """Return when an upload expires, in seconds since 1970."""
    return upload.modified / 1000 + plugin.settings["uploads.ttl"]


class PartURLs:
    """Signs the URLs of the parts of an upload.

    :ivar expires: when the URLs expire, in milliseconds since 1970. They never outlive the upload.
    """

    def __init__(self, request: Request, upload: DirectUpload):
        self._request = request
        self._plugin = plugin_of(request)
        self._upload = upload
        now = time.time()
        lasting = int(expires_at(self._plugin, upload) - now)
        self._seconds = max(1, min(self._plugin.settings["direct.expires"], lasting))
        self.expires = int((now + self._seconds) * 1000)

    def sign(self, number: int) -> SignedPut:
        """Return the request that stores a part.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        upload = self._upload
        if not upload.parts:
            return self._sign_own(number)
        key, (_, size) = upload.parts[number - 1], upload.span(number)
        signed = sign_part(self._plugin, upload, key, size, self._seconds)
        return signed or self._sign_own(number)

    def _sign_own(self, number: int) -> SignedPut:
        query = {"expires": self.expires, "signature": _sign(self._upload, number, self.expires)}
        ids = {"upload": self._upload.id, "number": number}
        return SignedPut(self._request.route_url(PART_ROUTE, **ids, _query=query))


def sign_part(
    plugin: Plugin, upload: DirectUpload, key: str, size: int, seconds: int
) -> SignedPut | None:
    """Return the request with which a client stores a part, or None if the storage cannot sign."""
    digest = upload.digest if upload.proven else ""
    return sign_put(plugin.storage, key, size, seconds, digest)


def label_of(plugin: Plugin, upload: DirectUpload) -> Label:
    """Return what the stored file is expected to say about itself."""
    policy = plugin.settings.policy_of(read_ref(upload.place))
    return policy.label(upload.intent.filename, upload.mimetype)


def check_signature(request: Request, upload: DirectUpload | None, number: int) -> DirectUpload:
    """Check that the URL of a part is one that this server has signed. Return the upload.

    :param upload: None if there is none of that id.
    :raises SignatureRefused: if the URL is wrong, or has expired.
    """
    expires, signature = (request.GET.get(name, "") for name in ("expires", "signature"))
    if upload is None or not is_decimal(expires) or len(expires) > 18:
        raise SignatureRefused()
    if not hmac.compare_digest(_sign(upload, number, int(expires)).encode(), signature.encode()):
        raise SignatureRefused()
    if time.time() * 1000 > int(expires):
        raise SignatureRefused("This URL has expired: ask for the upload again.")
    return upload


def _sign(upload: DirectUpload, number: int, expires: int) -> str:
    text = f"{upload.id}/{number}/{expires}"
    return hmac.new(upload.secret.encode(), text.encode(), "sha256").hexdigest()
