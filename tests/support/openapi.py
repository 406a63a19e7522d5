"""Comparing responses with the OpenAPI document of a server.

Every response that a test gets from a :class:`~tests.support.site.Site` is compared.
"""

import json
import re
from typing import Any

import webtest
from jsonschema import Draft202012Validator

PREFIX = "/v1"


def template_of(route: str) -> str:
    """A path as OpenAPI writes it: that of a route, without its regular expressions.

    >>> template_of(r"/media/{hash:[0-9a-f]{64}}/{width:\\d+}x{height:\\d+}")
    '/media/{hash}/{width}x{height}'
    """
    return re.sub(r"\{(\w+):(?:[^{}]|\{[^{}]*\})*\}", r"{\1}", route)


class CheckedApp(webtest.TestApp):
    """WebTest, which also checks that what the server answers is described.

    :param description: ``registry.attachment_api``.
    """

    def __init__(self, wsgi: Any, description: Any):
        super().__init__(wsgi)
        self._conformance = Conformance(description.to_openapi(PREFIX))

    def do_request(self, request: Any, *args: Any, **options: Any) -> Any:
        response = super().do_request(request, *args, **options)
        if self._conformance.operation(request.method, request.path):
            status, mimetype = response.status_int, response.content_type
            self._conformance.check(request.method, request.path, status, mimetype, response.body)
        return response


class Conformance:
    """What the OpenAPI 3.1 document of a server says about its responses.

    :param document: the document.
    """

    def __init__(self, document: dict[str, Any]):
        self._document = document
        self._paths = [(_pattern(path, item), item) for path, item in document["paths"].items()]
        # The more a path says, the more specific it is: /media/stat goes before /media/{hash}.
        self._paths.sort(key=lambda pair: pair[0].pattern.count("[^/]+"))

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the operation of a request, or None if the document has none."""
        path = path.removeprefix(PREFIX)
        item = next((item for pattern, item in self._paths if pattern.fullmatch(path)), {})
        return item.get(method.lower())

    def check(self, method: str, path: str, status: int, mimetype: str | None, body: bytes) -> None:
        """Check that the document lists the status of a response, its media type, and the schema of
        its body.

        :raises AssertionError: if it does not.
        """
        operation = self.operation(method, path)
        assert operation, f"{method} {path} is not described"
        name = operation["operationId"]
        assert str(status) in operation["responses"], f"{name}: {status} is not listed: {body!r}"
        response = self._resolve(operation["responses"][str(status)])
        content = response.get("content", {})
        if method == "HEAD" or not body:
            return
        assert content, f"{name}: {status} has a body"
        assert mimetype in content or "*/*" in content, f"{name}: {status} is {mimetype}"
        schema = content.get(mimetype, {}).get("schema", {})
        if mimetype == "application/json" and schema.get("format") != "binary":
            whole = {**schema, "components": self._document["components"]}
            errors = [
                f"{list(error.absolute_path)}: {error.message}"
                for error in Draft202012Validator(whole).iter_errors(json.loads(body))
            ]
            assert not errors, f"{name}: {status}: {errors}"

    def _resolve(self, item: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in item:
            return item
        _, _, kind, name = item["$ref"].split("/")
        return self._document["components"][kind][name]


def _pattern(path: str, item: dict[str, Any]) -> re.Pattern:
    """Return a regular expression for the URLs of a path. A parameter of which the document says
    what it looks like is taken at its word."""
    parameters = {each["name"]: each["schema"] for each in item.get("parameters", ())}

    def pattern_of(match: re.Match) -> str:
        stated = parameters.get(match[1], {}).get("pattern")
        return f"(?:{stated.strip('^$')})" if stated else "[^/]+"

    return re.compile(re.sub(r"\\{([^}]+)\\}", pattern_of, re.escape(path)))
