"""Answers that Pyramid has no class for."""

from pyramid.response import Response


class NoContent(Response):
    """A 204 that a batch can take: there, an empty body that is not JSON fails all of it."""

    json = None

    def __init__(self) -> None:
        super().__init__(status=204, content_type=None)
