"""Whose a request is."""

from pyramid.authorization import Everyone
from pyramid.request import Request


def owner_of(request: Request) -> str:
    """The principal whose entries and uploads are meant; nobody in particular is somebody too. Not
    known before the request is authenticated."""
    return request.prefixed_userid or Everyone
