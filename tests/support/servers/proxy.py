"""A proxy that misbehaves as a test tells it."""

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests


class Proxy:
    """A server between client and Kinto that passes requests on, except those that ``misbehave``
    answers itself.

    :param misbehave: called twice for each request with the handler: with None before Kinto is
        asked, with its answer afterwards. Returns whether it has answered.
    :param certificate: for HTTPS.
    """

    def __init__(self, target: str, misbehave, certificate: Path | None = None):
        outer = self
        self.requests: list[tuple[str, dict]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                outer.requests.append((f"{self.command} {self.path}", dict(self.headers)))
                if outer.misbehave(self, None):
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {k: v for k, v in self.headers.items() if k != "Connection"}
                url = outer.target + self.path
                with requests.Session() as session:
                    session.trust_env = False  # the credentials are the client's own
                    answer = session.request(
                        self.command,
                        url,
                        headers=headers,
                        data=body,
                        timeout=60,
                        allow_redirects=False,
                    )
                if outer.misbehave(self, answer):
                    self.close_connection = True
                    return
                self.answer(answer.status_code, answer.headers, answer.content)

            do_GET = do_POST = do_PATCH = do_DELETE = pass_on

            def answer(self, status, headers, content, length=None):
                self.send_response(status)
                length = len(content) if length is None else length
                hidden = ("content-length", "connection", "date", "server")
                for name, value in headers.items():
                    if name.lower() not in hidden:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            def reset(self):
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                )
                self.rfile.close()
                self.connection.close()

            def log_message(self, *args):
                pass

        self.target, self.misbehave = target.removesuffix("/v1"), misbehave
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, method="GET", end="/attachment"):
        return [
            headers
            for line, headers in self.requests
            if line.startswith(method) and line.endswith(end)
        ]


def is_file(handler, method="GET"):
    return handler.command == method and handler.path.endswith("/attachment")
