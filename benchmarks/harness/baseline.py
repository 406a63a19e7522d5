"""The floor: bare WSGI programs that transfer the same bytes and do nothing else."""

import os
from functools import cache
from hashlib import sha256
from uuid import uuid4

CHUNK = 256 * 1024


def receive(environ, start_response):
    """Read the body, hash it, and write it to a file in the folder ``FLOOR_FOLDER``."""
    digest, remaining = sha256(), int(environ.get("CONTENT_LENGTH") or 0)
    path = os.path.join(os.environ["FLOOR_FOLDER"], uuid4().hex)
    with open(path, "wb") as file:
        while remaining and (chunk := environ["wsgi.input"].read(min(CHUNK, remaining))):
            remaining -= len(chunk)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [digest.hexdigest().encode()]


def send_file(environ, start_response):
    """Respond with a file in the folder ``FLOOR_FOLDER``; the server may send it with
    ``sendfile``."""
    file = open(os.environ["FLOOR_FOLDER"] + environ["PATH_INFO"], "rb")
    _start(start_response, os.fstat(file.fileno()).st_size)
    return environ["wsgi.file_wrapper"](file, CHUNK)


def send_object(environ, start_response):
    """Respond with an object in the S3 bucket ``FLOOR_BUCKET``."""
    key = environ["PATH_INFO"].removeprefix("/")
    found = _s3().get_object(Bucket=os.environ["FLOOR_BUCKET"], Key=key)
    _start(start_response, found["ContentLength"])
    return found["Body"].iter_chunks(CHUNK)


def _start(start_response, size: int) -> None:
    headers = [("Content-Type", "application/pdf"), ("Content-Length", str(size))]
    start_response("200 OK", headers)


@cache
def _s3():
    import boto3  # here, so that the other programs do not load it

    return boto3.client("s3")
