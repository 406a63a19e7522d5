"""The floor of uploads to S3: hash a file, then upload it with boto3. Prints the cost as JSON.

::

    python -m benchmarks.harness.upload_file FILE BUCKET
"""

import json
import sys
import time
from hashlib import sha256
from pathlib import Path

import boto3
import psutil

from .baseline import CHUNK
from .process_stats import MIB, peak_of


def main(path: Path, bucket: str) -> None:
    """Hash and upload a file, print the cost, and delete the object."""
    client = boto3.client("s3")
    idle = psutil.Process().memory_info().rss / MIB
    started, cpu = time.monotonic(), time.process_time()
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    client.upload_file(str(path), bucket, path.name)
    cost = {
        "cpu": time.process_time() - cpu,
        "memory": peak_of("self") - idle,
        "seconds": time.monotonic() - started,
    }
    client.delete_object(Bucket=bucket, Key=path.name)
    print(json.dumps(cost))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
