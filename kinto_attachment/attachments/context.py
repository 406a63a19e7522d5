"""Permissions on the files of a record: those on the record itself."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error, raise_invalid
from kinto.views import object_exists_or_404, raise_404_if_invalid_id
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from ..errors import BlobDamaged, BlobNotFound, StorageUnavailable
from ..files.field import Field
from ..files.ref import ATTRIBUTE, FieldRef, RecordRef, Ref
from ..http.requests import RequestBody, read_conditions
from ..http.responses import explained, explaining
from ..plugin import plugin_of
from ..transactions.request import file_transaction, is_in_batch
from .fields import declared_fields, linked_fields
from .records import read_record

logger = logging.getLogger(__name__)

ATTEMPTS = 5
"""How many times a download tries to open the file of a record that is replaced again and again."""

DEFAULT_BUCKET = "attachment.default_bucket"
"""The key in ``bound_data`` of the personal bucket's id, if the URL calls it ``default``."""


class RecordContext(RouteFactory):
    """The record in the URL, and the permission that the request needs.

    ``POST`` and ``PUT`` need ``write`` on a record that exists, or ``record:create`` on the
    collection of a new one. ``DELETE`` needs ``write``, and ``GET`` needs ``read``. As everywhere
    in Kinto, an unknown collection is a 404.

    :cvar writing_methods: methods that write the record; others than these and ``GET`` need no
        permission here.
    :ivar ref: the record in the URL.
    :ivar place: the field in the URL, or the entry of one.
    :ivar holder: the owner of the file that is served, which is that place.
    :ivar body: the body of the request. It is closed when the request is finished.
    :ivar current_object: the record as it was read last; None if it does not exist.
    """

    writing_methods: tuple[str, ...] = ("POST", "PUT", "DELETE")

    def __init__(self, request: Request):
        super().__init__(request)
        self.resource_name = "record"
        self._request = request
        found = request.matchdict
        ids = (found[name] for name in ("bucket_id", "collection_id", "id"))
        self.ref = RecordRef(*map(storable_id, ids))
        field, entry = found.get("field", ATTRIBUTE), found.get("entry", "")
        self.place = FieldRef(self.ref, field, entry)
        self.holder: Ref = self.place
        self.body = RequestBody(request.environ)
        request.add_finished_callback(lambda request: self.body.close())
        self._bucket_to_create = False
        if request.method in self.writing_methods:
            self._check_collection()
            self.current_object = read_record(request, self.ref)
            self._require(request.method)
        elif request.method in ("GET", "HEAD"):
            # The record is read later: a client that may not read it must not learn whether it
            # exists.
            self.required_permission = "read"
            self.permission_object_id = self.ref.uri
            # Kinto itself creates the default bucket even for a GET; here its owner gets a 404.
            self._bucket_to_create = self.is_default_bucket and not self._bucket_exists

    def find_record(self) -> dict[str, Any]:
        """Return the record as it is now. Call this only if the client may read the record.

        :raises HTTPNotFound: if the record or its collection does not exist.
        :raises HTTPBadRequest: if the id of the record is malformed.
        """
        ref, request = self.ref, self._request
        self.current_object = read_record(request, ref)
        if self.current_object is None:
            # As in Kinto, the response says which object of the URL is missing.
            self._check_parent_ids()
            if self.is_default_bucket:
                self._check_id()  # in Kinto, all collections of this bucket exist
            read_collection(request, ref.bucket, ref.collection)
            self._check_id()
            raise self.not_found()
        return self.current_object

    def serve(self, answer: Callable[[dict[str, Any]], Response]) -> Response:
        """Return ``answer(record)`` for the record as it is now. Call this only if the client may
        read the record.

        :param answer: takes the record and returns the response. It is called again, with the
            record as it is then, if the file was replaced before it could be opened.
        :raises BlobNotFound: if the bytes of the file are lost.
        :raises BlobDamaged: if the bytes of the file are damaged.
        :raises StorageUnavailable: if the file was replaced during each of :data:`ATTEMPTS` calls.
        :raises HTTPException: as :meth:`find_record`.
        """
        record = self.find_record()
        for _ in range(ATTEMPTS):
            try:
                return answer(record)
            except (BlobNotFound, BlobDamaged) as error:
                before, record = record, self.find_record()
                if record == before:
                    logger.error("The attachment of %s is lost or damaged: %s", self.ref.uri, error)
                    raise
        raise StorageUnavailable(self.ref.uri, f"the file was replaced {ATTEMPTS} times in a row")

    def check_permission(self, principals, bound_perms) -> bool:
        """Return whether the user may do this. Everything is allowed in a default bucket that does
        not exist yet, because its user will own it.

        :raises HTTPBadRequest: if the user may write, but the id of the record is malformed.
        """
        allowed = self._bucket_to_create or super().check_permission(principals, bound_perms)
        if allowed and self._request.method in self.writing_methods:
            self._check_id()
        return allowed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the record, so that other requests that write it wait; then read it again. Uploads
        without preconditions to a record with one field do not wait for each other where the
        database settles which one wins.

        Call this only after the body was read: nothing is held while bytes move.

        :raises HTTPBadRequest: if the value of a header is malformed.
        :raises HTTPPreconditionFailed: if the record has another version than the client expects.
        """
        plugin, conditions = plugin_of(self._request), read_conditions(self._request)
        policy = plugin.settings.policy(self.ref.bucket, self.ref.collection)
        is_plain = self._request.method == "POST" and policy.has_default_fields
        if is_plain and plugin.rows.rolls_back and not any(conditions):
            yield
            return
        files = file_transaction(self._request)
        with files.hold(self.ref) as found:
            self.current_object = read_record(self._request, self.ref)
            if self.current_object is not None and not found:
                with files.hold(self.ref):  # created since there was nothing to lock
                    self.current_object = read_record(self._request, self.ref)
            self.check_preconditions()
            yield

    def check_preconditions(self) -> None:
        """Compare ``If-Match`` and ``If-None-Match`` with the record as it was read last.

        :raises HTTPBadRequest: if the value of a header is malformed.
        :raises HTTPPreconditionFailed: if the record has another version.
        """
        if_match, if_none_match = read_conditions(self._request)
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

    def declared_field(self) -> Field:
        """Return the field in the URL.

        :raises HTTPNotFound: if the collection does not declare it.
        """
        field = declared_fields(self._request, self.ref).get(self.place.field)
        if field is None:
            raise self.not_found(self._no_field, ERRORS.MISSING_RESOURCE)
        return field

    def check_has_field(self, record: dict[str, Any] | None) -> None:
        """Check that the field in the URL is declared, or that the record still has files of it.

        :raises HTTPNotFound: if neither is true.
        """
        name = self.place.field
        if name in declared_fields(self._request, self.ref):
            return
        if not record or name not in linked_fields(self._request, self.ref, [self.place]):
            raise self.not_found(self._no_field, ERRORS.MISSING_RESOURCE)

    @property
    def _no_field(self) -> str:
        declared = ", ".join(declared_fields(self._request, self.ref))
        return f"{self.place.field} is not a field for files here; these are: {declared}."

    def not_found(
        self, message: str | None = None, errno: ERRORS | None = None
    ) -> httpexceptions.HTTPNotFound:
        """Return the error for a record that does not exist or has no file in the place in the URL.

        :param message: what the record lacks instead.
        :param errno: a number that does not depend on whether the record exists.
        """
        details = {"id": self.ref.record, "resource_name": "record"}
        if errno is None and self.current_object is None:
            errno, message = ERRORS.INVALID_RESOURCE_ID, None
        else:
            errno = ERRORS.MISSING_RESOURCE
            message = message or f"No {self._what} on this record."
        error = httpexceptions.HTTPNotFound()
        return explained(http_error(error, errno=errno, message=message, details=details))

    @property
    def _what(self) -> str:
        if self.place.entry:
            return f"entry {self.place.entry} of {self.place.field}"
        return self.place.field

    @property
    def is_default_bucket(self) -> bool:
        """Whether the bucket is the user's personal one, and the client called it ``default``."""
        return self._request.bound_data.get(DEFAULT_BUCKET) == self.ref.bucket

    @property
    def _bucket_exists(self) -> bool:
        try:
            object_exists_or_404(self._request, "bucket", self.ref.bucket)
        except httpexceptions.HTTPNotFound:
            return False
        return True

    def _check_id(self) -> None:
        if not self._is_id("record", self.ref.record):
            raise_invalid(self._request, location="path", description="Invalid object id")

    def _check_parent_ids(self) -> None:
        ref, request = self.ref, self._request
        # In Kinto, the default bucket creates the collection before it looks at the record.
        if self.is_default_bucket and not self._is_id("collection", ref.collection):
            raise_invalid(request, location="path", description="Invalid collection id")
        with explaining():
            raise_404_if_invalid_id(request, "bucket", ref.bucket)
            raise_404_if_invalid_id(request, "collection", ref.collection)

    def _is_id(self, resource_name: str, object_id: str) -> bool:
        generators = self._request.registry.id_generators
        return bool(generators.get(resource_name, generators[""]).match(object_id))

    def _check_collection(self) -> None:
        ref, request = self.ref, self._request
        self._check_parent_ids()
        try:
            read_collection(request, ref.bucket, ref.collection)
        except httpexceptions.HTTPNotFound:
            if not self.is_default_bucket:
                raise
            self._bucket_to_create = not self._bucket_exists

    def _require(self, method: str) -> None:
        creates = method != "DELETE" and (
            # Kinto treats this header as a creation, even if the record exists (Kinto/kinto#792).
            self.current_object is None or self._request.headers.get("If-None-Match") == "*"
        )
        if creates:
            self.required_permission = "create"
            self.permission_object_id = f"{self.ref.collection_uri}/records"
        else:
            self.required_permission = "write"
            self.permission_object_id = self.ref.uri


def storable_id(object_id: str) -> str:
    """Return an id of a URL without NUL, which PostgreSQL cannot store or look up. The character in
    its place is in no id either, so that Kinto does not find such an object.

    >>> storable_id("a"), storable_id("a\\0")
    ('a', 'a�')
    """
    return object_id.replace("\0", "\ufffd")


def read_collection(request: Request, bucket: str, collection: str) -> dict[str, Any]:
    """Return the collection, and remember it in ``bound_data``, so that it is not read again, nor
    by Kinto. In a batch it is not remembered, because other operations may delete it.

    :raises HTTPNotFound: if the collection does not exist.
    """
    parent = f"/buckets/{bucket}"
    uri = f"{parent}/collections/{collection}"
    known = {} if is_in_batch(request) else request.bound_data.setdefault("collections", {})
    if uri not in known:
        with explaining():
            known[uri] = object_exists_or_404(request, "collection", collection, parent)
    return known[uri]
