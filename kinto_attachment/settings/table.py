"""The settings that there are: the one place where they are declared."""

from collections.abc import Callable
from typing import Any, NamedTuple

from .parsers import (
    integer,
    one_of,
    parse_endpoint,
    parse_extensions,
    parse_flag,
    parse_id,
    parse_mimetypes,
    parse_path,
    parse_port,
    parse_seconds,
    parse_sizes,
    parse_text,
    parse_url,
)

_NUMBER = integer()
_COUNT = integer(1)
_BYTES = integer(unit="bytes")
# A worker with less memory than this cannot decode anything.
_MEMORY = integer(512 * 1024 * 1024, unit="bytes")
_PROCESSES = integer(1, 64, "processes")
_QUALITY = integer(1, 100)
_LIFETIME = integer(1, 7 * 24 * 3600, "seconds")


class Setting(NamedTuple):
    """One row of the table: its name, how it is read, its default as it would be written,
    one line of help, whether a bucket or collection may have its own, and an older name."""

    name: str
    parse: Callable[[Any], Any]
    default: str
    help: str
    per_resource: bool = False
    alias: str = ""


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "storage",
        parse_text,
        "auto",
        "Where the files are: ``local``, ``s3``, ``gcs`` or ``memory``. ``auto`` is ``gcs``, "
        "``s3`` or ``local``, the first whose settings are there. A storage of your own is named "
        "by its class, such as ``package.module.MyStorage``, or by an entry point.",
    ),
    Setting(
        "base_url",
        parse_url,
        "",
        "Put before the key of a file to make the ``location`` in the record; relative without it.",
    ),
    Setting(
        "extra.base_url",
        parse_url,
        "",
        "What the ``attachments`` capability advertises, if it is not ``base_url``.",
    ),
    Setting("base_path", parse_text, "", "The folder that the files are in (``local``)."),
    Setting(
        "folder",
        parse_text,
        "",
        "Folder of the files below the root, of ``{bucket_id}`` and ``{collection_id}``.",
        per_resource=True,
    ),
    Setting(
        "randomize",
        parse_flag,
        "true",
        "Store files under a random name (UUID).",
        per_resource=True,
    ),
    Setting(
        "filename_pattern",
        parse_text,
        "{filename}",
        "The name of a file when ``randomize`` is false, of ``{filename}``, ``{extension}`` (with "
        "its dot), ``{hash}``, ``{shard}`` (its first two digits), ``{uuid}``, ``{record_id}``, "
        "``{bucket_id}``, ``{collection_id}``.",
        per_resource=True,
    ),
    Setting(
        "keep_old_files",
        parse_flag,
        "false",
        "Keep the bytes of replaced and deleted attachments.",
        per_resource=True,
    ),
    Setting(
        "extensions",
        parse_extensions,
        "default",
        "Accepted extensions: groups and names joined by ``+``, or ``any``.",
        per_resource=True,
    ),
    Setting(
        "mimetypes",
        parse_mimetypes,
        "",
        "Types of extensions, whatever the client says: ``.ftl:application/vnd.fluent;.db:...``",
        per_resource=True,
    ),
    Setting(
        "max_size",
        _BYTES,
        "0",
        "Largest file in bytes; 0 is no limit.",
        per_resource=True,
        alias="max_size_bytes",
    ),
    Setting(
        "check_content",
        parse_flag,
        "false",
        "Refuse files whose first bytes contradict their type.",
        per_resource=True,
    ),
    Setting(
        "private",
        parse_flag,
        "false",
        "``location`` is that of ``GET {record}/attachment``, for who may read the record, and "
        "not the storage's.",
        per_resource=True,
    ),
    Setting(
        "download",
        one_of("stream", "redirect", "accel"),
        "stream",
        "How ``GET {record}/attachment`` answers: with the bytes, with a redirection to a signed "
        "URL (``s3``, ``gcs``), or with an ``X-Accel-Redirect`` for nginx (``local``).",
    ),
    Setting(
        "redirect_expires",
        _LIFETIME,
        "300",
        "Seconds that a signed URL is good for.",
    ),
    Setting(
        "accel_path",
        parse_path,
        "/attachment-files/",
        "The internal location at which nginx has the files.",
    ),
    Setting(
        "media.verifier",
        one_of("thread", "none"),
        "thread",
        "Who verifies what came with ``?verify=false``: a ``thread`` of every server process, or "
        "only ``kinto-attachment verify``.",
    ),
    Setting(
        "library.bucket",
        parse_id,
        "",
        "The bucket of the media library; there is none without it.",
    ),
    Setting("library.collection", parse_id, "media", "Its collection."),
    Setting(
        "library.unclaimed_ttl",
        _LIFETIME,
        "86400",
        "Seconds that an upload waits to become an object of the library.",
    ),
    Setting("unsplash.access_key", parse_text, "", "Access key for ``/unsplash/{id}``."),
    Setting("unsplash.api_url", parse_endpoint, "https://api.unsplash.com", "Where Unsplash is."),
    Setting("unsplash.max_size", _COUNT, "52428800", "Largest photo in bytes."),
    Setting(
        "unsplash.timeout",
        parse_seconds,
        "30",
        "Seconds that one import may take in all.",
    ),
    Setting(
        "images.sizes",
        parse_sizes,
        "",
        "Sizes that may be asked for, such as ``320x0 1920x0 100x100``; any without it.",
    ),
    Setting(
        "images.step",
        _NUMBER,
        "0",
        "Or those whose width and height are multiples of this; 0 is no limit.",
    ),
    Setting("images.max_side", _COUNT, "4096", "Largest width or height of what is made."),
    Setting(
        "images.max_variants",
        _COUNT,
        "200",
        "Sizes that are kept of one image; the oldest makes room for another.",
    ),
    Setting("images.max_pixels", _COUNT, "50000000", "Largest image that is resized."),
    Setting("images.max_bytes", _COUNT, "104857600", "Largest file that is resized."),
    Setting("images.jpeg_quality", _QUALITY, "80", "Of JPEG."),
    Setting("images.webp_quality", _QUALITY, "80", "Of WebP."),
    Setting("images.avif_quality", _QUALITY, "60", "Of AVIF."),
    Setting(
        "images.negotiate",
        parse_flag,
        "false",
        "Answer with AVIF or WebP to who accepts it, without ``?format=``.",
    ),
    Setting(
        "images.cache_seconds",
        _NUMBER,
        "0",
        "Seconds that a process remembers which files of the library everybody may see: they are "
        "served several times faster, and for as long after they were deleted, or "
        "hidden.",
    ),
    Setting(
        "images.workers", _PROCESSES, "1", "Images made at the same time, by each server process."
    ),
    Setting("images.queue", _NUMBER, "16", "How many may wait for that; others get a 503."),
    Setting("images.timeout", parse_seconds, "10", "Seconds that one image may take."),
    Setting("images.memory", _MEMORY, "1610612736", "Bytes of address space it may take."),
    Setting(
        "spool_dir",
        parse_text,
        "",
        "Folder for files while they arrive (``s3``, ``gcs``); the system's temporary "
        "folder without it.",
    ),
    Setting("aws.access_key", parse_text, "", "S3 access key; boto3's own search for one without."),
    Setting("aws.secret_key", parse_text, "", "S3 secret key."),
    Setting("aws.bucket_name", parse_text, "", "S3 bucket.", alias="aws.bucket"),
    Setting("aws.acl", parse_text, "", "Canned ACL of new objects, such as ``public-read``."),
    Setting("aws.region", parse_text, "", "S3 region."),
    Setting("aws.endpoint_url", parse_endpoint, "", "URL of an S3 server that is not Amazon's."),
    Setting("aws.host", parse_text, "", "Its host, instead of ``aws.endpoint_url``."),
    Setting("aws.port", parse_port, "", "Its port, with ``aws.host``."),
    Setting("aws.is_secure", parse_flag, "true", "Whether to use TLS with ``aws.host``."),
    Setting("aws.use_path_style", parse_flag, "false", "Bucket in the path and not in the host."),
    Setting(
        "aws.request_checksum_calculation",
        one_of("when_supported", "when_required"),
        "when_supported",
        "Set to ``when_required`` for servers that refuse checksum trailers.",
    ),
    Setting(
        "aws.timeout", parse_seconds, "5", "Seconds to connect, or to wait for an answer, once."
    ),
    Setting("aws.num_retries", _NUMBER, "1", "How often a request is repeated."),
    Setting(
        "gcloud.credentials",
        parse_text,
        "",
        "Path of a service account's JSON file; default credentials without.",
    ),
    Setting("gcloud.project", parse_text, "", "Google Cloud project."),
    Setting("gcloud.bucket_name", parse_text, "", "Google Cloud Storage bucket."),
    Setting("gcloud.acl", parse_text, "", "Predefined ACL of new objects, such as ``publicRead``."),
    Setting("gcloud.cache_control", parse_text, "", "``Cache-Control`` of new objects."),
    Setting(
        "gcloud.auto_create_bucket", parse_flag, "false", "Create the bucket if it is missing."
    ),
    Setting("gcloud.auto_create_acl", parse_text, "", "Predefined ACL of a bucket so created."),
    Setting(
        "gcloud.uniform_bucket_level_access",
        parse_flag,
        "false",
        "The bucket has uniform access: send no ACL.",
    ),
    Setting(
        "gcloud.timeout",
        parse_seconds,
        "5",
        "Seconds to connect, or to wait for an answer, once; a request is repeated for one and a "
        "half of them.",
    ),
)
