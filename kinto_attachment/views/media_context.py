"""Who may do what in the media store: two settings of Kinto's kind, and one's own entries."""

from typing import Any

from kinto.authorization import RouteFactory
from pyramid.authorization import Everyone
from pyramid.request import Request

from ..body import Body
from ..owner import owner_of

PRINCIPALS = {
    "media_create_principals": "system.Authenticated",
    "media_read_principals": "system.Authenticated",
}
"""Settings, as Kinto's ``bucket_create_principals``, and what they are by default."""


class MediaContext(RouteFactory):
    """``media_create_principals`` may store, ``media_read_principals`` may read all that anybody
    stores. Whoever is authenticated may read and delete what is his own."""

    def __init__(self, request: Request):
        super().__init__(request)
        self.resource_name = "media"
        self.permission_object_id = "/media"
        self._request = request
        self._stores = request.method in ("POST", "PUT") and not request.path.endswith("/stat")
        creates = self._stores or request.method == "DELETE"
        self.required_permission = "create" if creates else "read"
        self._principals: list[str] = []
        self.body = Body(request.environ)
        request.add_finished_callback(lambda request: self.body.close())

    def check_permission(self, principals: list[str], bound_perms: Any) -> bool:
        self._principals = principals
        is_own = self.owner != Everyone and not self._stores
        return is_own or super().check_permission(principals, None)

    @property
    def owner(self) -> str:
        """Whose entries are meant; see :func:`kinto_attachment.owner.owner_of`."""
        return owner_of(self._request)

    @property
    def reads_all(self) -> bool:
        """Whether he may read what others store."""
        return super().check_permission(self._principals, [("/media", "read")])
