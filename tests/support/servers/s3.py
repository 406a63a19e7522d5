"""S3 servers: moto, which is an imitation, and SeaweedFS, which is real."""

import json
import sys
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import boto3

from tests.support.servers import Process, free_port, is_listening


class S3Server:
    """
    :param folder: for data and logs.
    :ivar endpoint_url: of the server.
    """

    access_key, secret_key = "kinto", "kinto-secret"

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        self._process = Process(self.command(), self.folder, self._answers)
        return self

    def __exit__(self, *exc_info) -> None:
        self._process.stop()

    def command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        return is_listening(self.port)

    def client(self):
        """A client of boto3 with all permissions."""
        return self._client

    @cached_property
    def _client(self):
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"files-{uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name

    def settings(self, bucket: str) -> dict[str, str]:
        return {
            "attachment.aws.endpoint_url": self.endpoint_url,
            "attachment.aws.access_key": self.access_key,
            "attachment.aws.secret_key": self.secret_key,
            "attachment.aws.region": "us-east-1",
            "attachment.aws.bucket_name": bucket,
            "attachment.aws.timeout": "20",
        }


class Moto(S3Server):
    def command(self) -> list[str]:
        moto = Path(sys.executable).parent / "moto_server"
        return [str(moto), "-H", "127.0.0.1", "-p", str(self.port)]


class SeaweedFS(S3Server):
    def command(self) -> list[str]:
        identity = {
            "name": "kinto",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        data = self.folder / "seaweedfs"
        data.mkdir()
        # Its default ports may be taken.
        ports = [
            f"-{name}={free_port()}"
            for server in ("master", "volume", "filer")
            for name in (f"{server}.port", f"{server}.port.grpc")
        ]
        return [
            str(Path(sys.executable).parent / "weed"),
            "mini",
            f"-dir={data}",
            # Each bucket takes some volumes, which are empty at first.
            "-volume.max=100000",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={free_port()}",
            f"-s3.config={config}",
            *ports,
            f"-admin.port={free_port()}",
            f"-admin.port.grpc={free_port()}",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.lance=0",
            "-s3.port.iceberg=0",
        ]

    def _answers(self) -> bool:
        if not is_listening(self.port):
            return False
        try:
            self.bucket()
        except Exception:  # it listens before it is ready
            return False
        return True
