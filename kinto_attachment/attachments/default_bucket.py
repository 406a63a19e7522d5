"""The ``default`` bucket, an alias for the personal bucket of whoever asks.

Kinto's plugin for it takes every URL below ``/buckets/default/``, reads the whole body, and
creates bucket and collection before anything is known of the request. So attachments get a view of
their own on its route: same alias, same creation on demand, but the body is passed on unread and
the creation happens in the transaction that writes the record.
"""

from kinto.core.utils import instance_uri
from kinto.plugins.default_bucket import resource_create_object
from kinto.views.buckets import Bucket
from kinto.views.collections import Collection
from pyramid import httpexceptions
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.settings import aslist

from ..files.ref import RecordRef
from .context import DEFAULT_BUCKET

PLUGIN = "kinto.plugins.default_bucket"
ALIAS = "/buckets/default/"


def is_enabled(config: Configurator) -> bool:
    return PLUGIN in aslist(config.get_settings().get("includes", ""))


def install(config: Configurator) -> None:
    """Take over the attachments below the alias."""
    config.add_view(
        default_bucket_attachment,
        route_name="default_bucket_collection",
        path_info=rf"^/v\d+{ALIAS}collections/[^/]+/records/[^/]+/attachment(/[^/]+)?$",
        permission=NO_PERMISSION_REQUIRED,
    )


def default_bucket_attachment(request: Request) -> Response:
    """The same request, to the real bucket."""
    if request.method == "OPTIONS":
        bucket_id = "unknown"  # preflights carry no user, and need none
    elif request.authenticated_userid is None:
        raise httpexceptions.HTTPForbidden()
    else:
        bucket_id = request.default_bucket_id
        request.bound_data[DEFAULT_BUCKET] = bucket_id
    # What WebOb keeps in there belongs to this request, all else to the server.
    environ = {key: value for key, value in request.environ.items() if key[:6] != "webob."}
    environ["PATH_INFO"] = request.path_info.replace(ALIAS, f"/buckets/{bucket_id}/", 1)
    subrequest = Request(environ)
    subrequest.registry = request.registry
    subrequest.parent = request
    try:
        return request.invoke_subrequest(subrequest)
    finally:
        # The body is read: nobody is to try again.
        for name in ("wsgi.input", "CONTENT_LENGTH"):
            if name in environ:
                request.environ[name] = environ[name]


def create_parents(request: Request, ref: RecordRef) -> None:
    """Create the bucket and the collection of the record, where they are missing."""
    bucket_uri = instance_uri(request, "bucket", id=ref.bucket)
    resource_create_object(request, Bucket, bucket_uri)
    collection_uri = instance_uri(request, "collection", bucket_id=ref.bucket, id=ref.collection)
    resource_create_object(request, Collection, collection_uri)
