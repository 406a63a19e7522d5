"""A multipart upload to S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html"""

from typing import Any

from ...errors import BlobNotFound, StorageUnavailable
from .bucket import Bucket, translated
from .multipart import Part


class MultipartUpload:
    """An upload that has begun. It ends with :meth:`complete` or :meth:`cancel`. Several threads
    may send its parts. boto3's own multipart upload takes 2 to 10 times the memory.

    :param answer: that to CreateMultipartUpload.
    """

    def __init__(self, bucket: Bucket, key: str, answer: dict[str, Any]):
        self._bucket = bucket
        self._key = key
        self._where = {"Bucket": bucket.name, "Key": key}
        with translated(key):
            self._where["UploadId"] = answer["UploadId"]
        self._sent: list[dict[str, Any]] = []

    @staticmethod
    def checksum(bucket: Bucket) -> dict[str, str]:
        """Return the arguments that have the server compare checksums, for CreateMultipartUpload
        and UploadPart."""
        return {"ChecksumAlgorithm": "CRC32"} if bucket.sends_checksums else {}

    def send(self, number: int, part: bytes | bytearray, is_last: bool = False) -> None:
        """Send bytes of at least 5 MiB, except for those of the last part.

        :param number: counts from 1.
        """
        self.send_part(number, {"Body": part})

    def send_part(self, number: int, part: Part) -> None:
        """Send a part, or have the server copy it.

        :param part: arguments of UploadPart or UploadPartCopy.
        """
        client, where = self._bucket.client, {**self._where, "PartNumber": number}
        is_copy = "CopySource" in part
        with self._bucket.call(self._key, missing=BlobNotFound if is_copy else StorageUnavailable):
            if is_copy:
                answer = client.upload_part_copy(**where, **part)["CopyPartResult"]
            else:
                answer = client.upload_part(**where, **part, **self.checksum(self._bucket))
            sums = {name: answer[name] for name in ("ChecksumCRC32",) if name in answer}
            self._sent.append({"PartNumber": number, "ETag": answer["ETag"], **sums})

    def complete(self) -> None:
        """Store the parts that were sent, in their order."""
        parts = sorted(self._sent, key=lambda part: part["PartNumber"])
        with self._bucket.call(self._key):
            self._bucket.client.complete_multipart_upload(
                **self._where, MultipartUpload={"Parts": parts}
            )

    def cancel(self) -> None:
        """Abort the upload. One that cannot be aborted now is left to ``gc``; it is not an
        object."""
        try:
            with self._bucket.call(self._key):
                self._bucket.client.abort_multipart_upload(**self._where)
        except StorageUnavailable:
            return
