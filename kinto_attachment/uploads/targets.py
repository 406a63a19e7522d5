"""What an upload can become: a file of a record, an entry of the media store, or a file of the
library. Each target hands a file to its door as a form would, once all bytes are stored."""

from abc import ABC, abstractmethod
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from ..attachments import upload as forms
from ..attachments import views as attachments
from ..attachments.context import RecordContext
from ..attachments.fields import policy_at
from ..attachments.records import url_of
from ..errors import EmptyBody, FieldRefused, TooLarge
from ..files.blob import Digest
from ..files.filename import accept_filename
from ..files.mimetype import accept_mimetype
from ..files.ref import FieldRef
from ..http import transfers
from ..http.forms import Received
from ..http.text import read_json_object
from ..library import views as library
from ..media import views as media
from ..plugin import plugin_of
from ..rows.uploads import Intent
from ..settings.policy import Policy
from ..storage.stored_file import StoredFile
from .context import LIBRARY, STORE, LibraryUploadContext, choose_target
from .finished import Finished

CONDITIONS = ("If-Match", "If-None-Match")


class Target(ABC):
    """What the uploads below one path become.

    :ivar door: the name of the door, for metrics.
    :ivar base: the path, without the version prefix and ``/uploads``.
    :ivar name: what the metadata calls the target, where a path serves several.
    :ivar has_facts: whether the client needs what :meth:`attach` returns as the body.
    """

    door: str
    base: str
    name = ""
    has_facts = False

    def __init__(self, request: Request):
        self._request = request

    def measure(self, kind: str) -> None:
        """Measure the upload of a whole file from now on.

        :param kind: the metric that counts it if this request completes it: ``resumable`` or
            ``direct``.
        """
        transfers.measure(self._request, self.door, is_upload=True)
        metrics = plugin_of(self._request).metrics

        def count(request: Request, response: Response) -> None:
            if response.status_code in (200, 201, 204):  # a 202 means: ask again later
                metrics.count(kind, event="completed")

        self._request.add_response_callback(count)

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """What the settings say about the files."""

    @property
    def place(self) -> FieldRef | None:
        """Where the file goes, if its key may be chosen before its hash is known, and no other file
        can ever have that key."""
        return None

    @abstractmethod
    def check(self, intent: Intent) -> None:
        """Check what can be checked before the bytes are there.

        :raises Refused: if the file could not be attached now.
        """

    def begin(self, intent: Intent) -> None:
        """Check once more what can be checked before the file is stored.

        :raises Refused: if the file could not be attached now.
        """
        self.check(intent)

    @abstractmethod
    def store(self, intent: Intent, file: StoredFile, digest: Digest) -> None:
        """Store the whole file under its key: the first half of an upload. Idempotent in a request.

        :raises Refused: if the file is not acceptable.
        """

    @abstractmethod
    def attach(self) -> Finished:
        """Give the stored file to its owner: the second half, which writes rows only."""

    def check_size(self, size: int) -> None:
        """Check that a file may be this large, in bytes.

        :raises TooLarge: if it may not.
        """
        limit = self.policy.max_size
        if limit and size > limit:
            raise TooLarge(size, limit)

    def read_intent(self, values: dict[str, str], owner: str) -> Intent:
        """Return what the sender wants.

        :param values: the metadata of the upload.
        :param owner: the principal that sends it.
        :raises Refused: if a value is malformed.
        """
        return self.make_intent(
            owner,
            filename=values.get("filename"),
            mimetype=values.get("filetype") or values.get("type", ""),
            data=read_json_object(values, "data"),
            permissions=read_json_object(values, "permissions"),
        )

    def make_intent(
        self,
        owner: str,
        *,
        filename: str | None,
        mimetype: str,
        data: dict[str, Any] | None,
        permissions: dict[str, Any] | None,
    ) -> Intent:
        """Return what the sender wants, with the conditions in the headers of the request.

        :param owner: the principal that sends the upload.
        :raises FilenameRefused: if the filename is malformed, or missing where one is needed.
        """
        headers = self._request.headers
        return Intent(
            base=self.base,
            owner=owner,
            filename=self._accept_filename(filename),
            mimetype=accept_mimetype(mimetype) or "",
            data=data,
            permissions=permissions,
            if_match=headers.get("If-Match", ""),
            if_none_match=headers.get("If-None-Match", ""),
            target=self.name,
        )

    def _accept_filename(self, filename: str | None) -> str:
        return accept_filename(filename)

    def _received(self, intent: Intent, file: StoredFile, digest: Digest) -> Received:
        accepted = forms.file_field("attachment", self.policy)
        received = Received(accepted, intent.filename, intent.mimetype or None, digest)
        received.file = file
        return received


class RecordTarget(Target):
    """A field of a record, or a new entry of it.

    :param context: the record and the field.
    """

    door = "attachments"

    def __init__(self, request: Request, context: RecordContext):
        super().__init__(request)
        self._context = context
        self.base = context.place.url_path

    @property
    def policy(self) -> Policy:
        return policy_at(self._request, self._context.place)

    @property
    def place(self) -> FieldRef | None:
        place = self._context.declared_field().new_place(self._context.ref)
        return place if self.policy.template.unique else None

    def check(self, intent: Intent) -> None:
        declared = attachments.check_attachable(self._request, self._context)
        self.policy.check_extension(intent.filename)
        place = declared.new_place(self._context.ref)
        record = {**(self._context.current_object or {}), **(intent.data or {})}
        forms.check_room(self._request, [place], record)

    def begin(self, intent: Intent) -> None:
        for name, value in zip(CONDITIONS, (intent.if_match, intent.if_none_match), strict=True):
            self._request.headers.pop(name, None)
            if value:
                self._request.headers[name] = value
        super().begin(intent)

    def store(self, intent: Intent, file: StoredFile, digest: Digest) -> None:
        if self._key in self._request.bound_data:
            return
        place = self._context.declared_field().new_place(self._context.ref)
        files = [(place, self._received(intent, file, digest))]
        data, permissions = intent.data, intent.permissions
        forms.store_form(self._request, self._context, files, data, permissions)

    def attach(self) -> Finished:
        request, context = self._request, self._context
        form = request.bound_data[self._key]
        declared = context.declared_field()
        body = attachments.attach_file(request, context, declared, form)
        response, headers = request.response, request.response.headers
        return Finished(
            response.status_code,
            url_of(request, form.files[0].place),
            headers["ETag"],
            body,
            headers.pop("Location"),
            headers["Last-Modified"],
        )

    @property
    def _key(self) -> tuple:
        return (forms.STORED, self._context.ref, self._context.place)


class StoreTarget(Target):
    """The media store."""

    door, base, name = "media", "/media", STORE

    @property
    def policy(self) -> Policy:
        return plugin_of(self._request).settings.media

    def read_intent(self, values: dict[str, str], owner: str) -> Intent:
        target = values.get("target")
        choose_target(self._request, target, "Upload-Metadata", "header")
        return super().read_intent(values, owner)

    def check(self, intent: Intent) -> None:
        _check_no_record(intent)

    def check_size(self, size: int) -> None:
        if not size:
            raise EmptyBody()
        super().check_size(size)

    def store(self, intent: Intent, file: StoredFile, digest: Digest) -> None:
        if media.STORED not in self._request.bound_data:
            media.store_file(self._request, file, intent.mimetype or None, digest)

    def attach(self) -> Finished:
        request = self._request
        stored = request.bound_data[media.STORED]
        status = 201 if media.keep_entry(request, stored) else 200
        digest = stored.ref.digest
        url = request.route_url("medium", hash=digest)
        return Finished(status, url, f'"{digest}"', media.describe(request, stored), url)

    def _accept_filename(self, filename: str | None) -> str:
        return ""


class LibraryTarget(Target):
    """A file for a new object of the media library."""

    door, base, name = "library", "/media", LIBRARY
    has_facts = True

    @property
    def policy(self) -> Policy:
        return library.policy_of(self._request)

    @property
    def place(self) -> FieldRef | None:
        template = self.policy.template
        # The id of the object is chosen when it is made.
        has_id = any(f"{{{name}}}" in template.text for name in ("rid", "record_id"))
        return library.new_place(self._request) if template.unique and not has_id else None

    def check(self, intent: Intent) -> None:
        _check_no_record(intent)
        self.policy.check_extension(intent.filename)

    def store(self, intent: Intent, file: StoredFile, digest: Digest) -> None:
        if library.STORED not in self._request.bound_data:
            received = self._received(intent, file, digest)
            library.store_file(self._request, received, save=False)

    def attach(self) -> Finished:
        request = self._request
        facts = library.keep(request, request.bound_data[library.STORED])
        return Finished(request.response.status_code, body=facts)


def target_of(request: Request) -> Target:
    """Return what the uploads of the path in the URL become.

    :raises HTTPNotFound: if the collection does not declare the field in the URL.
    """
    context = request.context
    if isinstance(context, RecordContext):
        context.declared_field()
        return RecordTarget(request, context)
    is_library = isinstance(context, LibraryUploadContext)
    return LibraryTarget(request) if is_library else StoreTarget(request)


def _check_no_record(intent: Intent) -> None:
    for name, value in (("data", intent.data), ("permissions", intent.permissions)):
        if value is not None:
            raise FieldRefused(f"{name} is for records: leave it out here", name)
