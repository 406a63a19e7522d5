"""The floor: a bare WSGI program that reads a body, hashes it and writes it, and nothing else."""

import os
from hashlib import sha256
from uuid import uuid4

CHUNK = 256 * 1024
FOLDER = os.environ.get("FLOOR_FOLDER", ".")


def application(environ, start_response):
    digest, left = sha256(), int(environ.get("CONTENT_LENGTH") or 0)
    path = os.path.join(FOLDER, uuid4().hex)
    with open(path, "wb") as file:
        while left and (chunk := environ["wsgi.input"].read(min(CHUNK, left))):
            left -= len(chunk)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [digest.hexdigest().encode()]
