"""Who may do what to the attachment of the record in the URL: as with the record itself."""

import logging
from collections.abc import Callable
from typing import Any

import colander
from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error, raise_invalid
from kinto.core.resource.schema import HeaderSchema
from kinto.views import object_exists_or_404, raise_404_if_invalid_id
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from ..errors import BlobDamaged, BlobNotFound, StorageUnavailable
from ..files.ref import RecordRef
from ..http.requests import RequestBody
from ..transactions.request import is_in_batch
from .records import read_record

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""Replacements of a file while one tries to open it."""

DEFAULT_BUCKET = "attachment.default_bucket"
"""In ``bound_data``: the bucket that may yet have to be created."""


class RecordContext(RouteFactory):
    """The record below the URL, and the permission that the method needs.

    ``POST`` needs ``write`` on a record that is there, else ``record:create`` on its collection;
    ``DELETE`` needs ``write``, ``GET`` needs ``read``. As everywhere in Kinto, an unknown
    collection is a 404.
    """

    def __init__(self, request: Request):
        super().__init__(request)
        self.resource_name = "record"
        self._request = request
        matchdict = request.matchdict
        self.ref = RecordRef(matchdict["bucket_id"], matchdict["collection_id"], matchdict["id"])
        self.body = RequestBody(request.environ)
        request.add_finished_callback(lambda request: self.body.close())
        self._bucket_to_create = False
        if request.method in ("POST", "DELETE"):
            self._check_id()
            self._check_collection()
            self.current_object = read_record(request, self.ref)
            self._require(request.method)
        elif request.method in ("GET", "HEAD"):
            # Nothing is looked up for who may not know of it.
            self.required_permission = "read"
            self.permission_object_id = self.ref.uri
            # Kinto would have created it by now.
            self._bucket_to_create = self.is_default_bucket and not self._bucket_exists

    def find_record(self) -> dict[str, Any]:
        """The record as it is now, for who may read it.

        :raises HTTPNotFound: there is no such record or collection.
        :raises HTTPBadRequest: there cannot be such a record.
        """
        ref, request = self.ref, self._request
        self.current_object = read_record(request, ref)
        if self.current_object is None:
            # Which of all is not there.
            raise_404_if_invalid_id(request, "bucket", ref.bucket)
            raise_404_if_invalid_id(request, "collection", ref.collection)
            object_exists_or_404(request, "collection", ref.collection, f"/buckets/{ref.bucket}")
            self._check_id()
            raise self.not_found()
        return self.current_object

    def serve(self, answer: Callable[[dict[str, Any]], Response]) -> Response:
        """What is answered to the record as it is now, for who may read it.

        :param answer: is called again if the file was replaced before it could be opened.
        :raises BlobNotFound: the file is lost; or ``BlobDamaged``.
        """
        record = self.find_record()
        for _ in range(ATTEMPTS):
            try:
                return answer(record)
            except (BlobNotFound, BlobDamaged) as error:
                before, record = record, self.find_record()
                if record == before:
                    logger.error("The attachment of %s is lost: %s", self.ref.uri, error)
                    raise
        raise StorageUnavailable(self.ref.uri, "replaced again and again")

    def check_permission(self, principals, bound_perms) -> bool:
        return self._bucket_to_create or super().check_permission(principals, bound_perms)

    def check_preconditions(self) -> None:
        """``If-Match`` and ``If-None-Match`` against the record as it is now. Kinto judges them
        again when it writes; this is so that nobody sends a file in vain.

        :raises HTTPBadRequest: they are no Kinto timestamps.
        :raises HTTPPreconditionFailed: the record is another.
        """
        if_match, if_none_match = self._conditions()
        record = self.current_object
        if record is None:
            failed = if_match is not None
        elif if_none_match == "*":
            failed = True
        else:
            failed = if_match not in (None, "*", record["last_modified"])
        if not failed:
            return
        details = {"existing": record} if record else None
        response = http_error(
            httpexceptions.HTTPPreconditionFailed(),
            errno=ERRORS.MODIFIED_MEANWHILE,
            message="Resource was modified meanwhile",
            details=details,
        )
        if record:
            response.headers["ETag"] = f'"{record["last_modified"]}"'
            response.last_modified = record["last_modified"] / 1000.0
        raise response

    def not_found(self) -> httpexceptions.HTTPNotFound:
        """Nothing is attached, or there is no such record."""
        details = {"id": self.ref.record, "resource_name": "record"}
        return http_error(
            httpexceptions.HTTPNotFound(),
            errno=ERRORS.INVALID_RESOURCE_ID
            if self.current_object is None
            else ERRORS.MISSING_RESOURCE,
            message="No attachment on this record." if self.current_object else None,
            details=details,
        )

    def _conditions(self) -> tuple:
        headers = {
            name: self._request.headers[name]
            for name in ("If-Match", "If-None-Match")
            if name in self._request.headers
        }
        try:
            parsed = HeaderSchema().deserialize(headers)
        except colander.Invalid as error:
            name, description = next(iter(error.asdict().items()))
            raise_invalid(self._request, "header", name, description)
        return parsed.get("If-Match"), parsed.get("If-None-Match")

    @property
    def is_default_bucket(self) -> bool:
        """Whether it is the personal bucket of whoever asks."""
        return self._request.bound_data.get(DEFAULT_BUCKET) == self.ref.bucket

    @property
    def _bucket_exists(self) -> bool:
        try:
            object_exists_or_404(self._request, "bucket", self.ref.bucket)
        except httpexceptions.HTTPNotFound:
            return False
        return True

    def _check_id(self) -> None:
        generators = self._request.registry.id_generators
        if not generators.get("record", generators[""]).match(self.ref.record):
            raise_invalid(self._request, location="path", description="Invalid object id")

    def _check_collection(self) -> None:
        ref, request = self.ref, self._request
        raise_404_if_invalid_id(request, "bucket", ref.bucket)
        raise_404_if_invalid_id(request, "collection", ref.collection)
        try:
            read_collection(request, ref.bucket, ref.collection)
        except httpexceptions.HTTPNotFound:
            if not self.is_default_bucket:
                raise
            self._bucket_to_create = not self._bucket_exists

    def _require(self, method: str) -> None:
        creates = method == "POST" and (
            # As Kinto has it for safe creations (Kinto/kinto#792).
            self.current_object is None or self._request.headers.get("If-None-Match") == "*"
        )
        if creates:
            self.required_permission = "create"
            self.permission_object_id = f"{self.ref.collection_uri}/records"
        else:
            self.required_permission = "write"
            self.permission_object_id = self.ref.uri


def read_collection(request: Request, bucket: str, collection: str) -> None:
    """Look for it, and leave it where Kinto looks for what was read in this transaction; but in
    a batch, where it may be deleted, and created again.

    :raises HTTPNotFound: there is no such collection.
    """
    parent = f"/buckets/{bucket}"
    found = object_exists_or_404(request, "collection", collection, parent)
    if not is_in_batch(request):
        known = request.bound_data.setdefault("collections", {})
        known[f"{parent}/collections/{collection}"] = found
