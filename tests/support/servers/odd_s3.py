"""A server that passes requests on to an S3 server, except for those that it refuses."""

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'


class OddS3:
    """
    ::

        with OddS3(moto.endpoint_url, lambda handler: (501, "NotImplemented")) as odd:
            odd.endpoint_url

    :param target: URL of an S3 server.
    :param refuse: returns the status and the error code with which a request is refused, or None.
    :ivar refused: the requests that were, as ``PUT /bucket/key``.
    """

    def __init__(self, target: str, refuse: Callable[[BaseHTTPRequestHandler], tuple | None]):
        host, self.refused = urlsplit(target).netloc, []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                if self.headers.get("Expect", "").lower() == "100-continue":
                    self.send_response_only(100)
                    self.end_headers()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                refusal = refuse(self)
                if refusal:
                    outer.refused.append(f"{self.command} {self.path}")
                    self.answer(refusal[0], {}, ERROR.format(code=refusal[1]).encode())
                    return
                connection = http.client.HTTPConnection(host, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name != "Expect"}
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                self.answer(response.status, response.headers, response.read())
                connection.close()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

            def answer(self, status, headers, content):
                self.send_response(status)
                hidden = ("connection", "date", "server", "transfer-encoding")
                if self.command != "HEAD":
                    hidden += ("content-length",)
                for name, value in headers.items():
                    if name.lower() not in hidden:
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        outer = self
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "OddS3":
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
