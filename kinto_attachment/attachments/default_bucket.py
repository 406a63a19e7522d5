"""The ``default`` bucket: an alias for the user's personal bucket.

Kinto's plugin for this bucket handles every URL below ``/buckets/default/``. It reads the whole
body, and it creates the bucket and the collection before it knows whether the request is valid.
Attachments therefore have a view of their own on the same route. This view resolves the same alias,
but it passes the body on unread. The bucket and the collection are created on demand as well, but
in the transaction that writes the record.
"""

from collections.abc import Iterable

from kinto.core import Service
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
    """Return whether the server includes Kinto's plugin for the default bucket."""
    return PLUGIN in aslist(config.get_settings().get("includes", ""))


def leave_alias(config: Configurator, services: Iterable[Service]) -> None:
    """Let services of routes below records leave the alias to :func:`install`."""
    for service in services:
        service.path_info = rf"^/v\d+(?!{ALIAS})" if is_enabled(config) else "^/"


def install(config: Configurator) -> None:
    """Route the attachments below the alias to :func:`default_bucket_attachment`."""
    config.add_view(
        default_bucket_attachment,
        route_name="default_bucket_collection",
        path_info=rf"^/v\d+{ALIAS}collections/[^/]*/records/[^/]*/attachments?(/[^/]*){{0,4}}$",
        permission=NO_PERMISSION_REQUIRED,
    )


def default_bucket_attachment(request: Request) -> Response:
    """Return the response to the same request on the user's personal bucket.

    :raises HTTPForbidden: if the client is not authenticated.
    """
    if request.method == "OPTIONS":
        bucket_id = "unknown"  # a CORS preflight has no user, and no bucket is needed for it
    elif request.authenticated_userid is None:
        raise httpexceptions.HTTPForbidden()
    else:
        bucket_id = request.default_bucket_id
        request.bound_data[DEFAULT_BUCKET] = bucket_id
    # The ``webob.`` keys hold what WebOb has cached for this request. The subrequest has its own.
    environ = {key: value for key, value in request.environ.items() if key[:6] != "webob."}
    # Not request.path_info, which is decoded already.
    environ["PATH_INFO"] = environ["PATH_INFO"].replace(ALIAS, f"/buckets/{bucket_id}/", 1)
    subrequest = Request(environ)
    subrequest.registry = request.registry
    subrequest.parent = request
    try:
        return request.invoke_subrequest(subrequest)
    except Exception:
        if subrequest.matched_route and request.method != "OPTIONS":
            # The response to an error has the CORS headers of the route behind the alias.
            request.matched_route = subrequest.matched_route
            vars(request).pop("current_service", None)
        raise
    finally:
        # The subrequest has read the body and put an empty one in its place. Code that runs after
        # this view must find the empty one, too.
        for name in ("wsgi.input", "CONTENT_LENGTH"):
            if name in environ:
                request.environ[name] = environ[name]


def create_parents(request: Request, ref: RecordRef) -> None:
    """Create the bucket and the collection of the record, if they do not exist."""
    bucket_uri = instance_uri(request, "bucket", id=ref.bucket)
    resource_create_object(request, Bucket, bucket_uri)
    collection_uri = instance_uri(request, "collection", bucket_id=ref.bucket, id=ref.collection)
    resource_create_object(request, Collection, collection_uri)
