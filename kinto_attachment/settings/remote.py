"""The settings of storages on other machines."""

from .parsers import (
    integer,
    one_of,
    parse_endpoint,
    parse_flag,
    parse_port,
    parse_seconds,
    parse_text,
)
from .setting import Setting

S3: tuple[Setting, ...] = (
    Setting(
        "aws.access_key",
        parse_text,
        "",
        "S3 access key. If empty, boto3 looks for credentials by itself.",
    ),
    Setting("aws.secret_key", parse_text, "", "S3 secret key."),
    Setting("aws.bucket_name", parse_text, "", "S3 bucket.", alias="aws.bucket"),
    Setting(
        "aws.acl",
        parse_text,
        "public-read",
        "Canned ACL of new objects that are not private. If empty, or if the bucket refuses ACLs, "
        "none is sent.",
    ),
    Setting("aws.region", parse_text, "", "S3 region."),
    Setting("aws.endpoint_url", parse_endpoint, "", "URL of an S3 server other than Amazon's."),
    Setting("aws.host", parse_text, "", "Host of the S3 server, instead of ``aws.endpoint_url``."),
    Setting("aws.port", parse_port, "", "Port on ``aws.host``."),
    Setting("aws.is_secure", parse_flag, "true", "Use TLS to connect to ``aws.host``."),
    Setting(
        "aws.use_path_style",
        parse_flag,
        "false",
        "Put the bucket into the path of URLs, not into the host.",
    ),
    Setting(
        "aws.request_checksum_calculation",
        one_of("when_supported", "when_required"),
        "when_supported",
        "Set this to ``when_required`` for servers that refuse checksum trailers.",
    ),
    Setting(
        "aws.timeout",
        parse_seconds,
        "5",
        "Seconds to wait for a connection or a response, for each attempt.",
    ),
    Setting(
        "aws.num_retries", integer(), "1", "Number of times that a failed request is repeated."
    ),
)

GCS: tuple[Setting, ...] = (
    Setting(
        "gcloud.credentials",
        parse_text,
        "",
        "Path of the JSON file of a service account. If empty, Google's defaults are used.",
    ),
    Setting("gcloud.project", parse_text, "", "Google Cloud project."),
    Setting("gcloud.bucket_name", parse_text, "", "Google Cloud Storage bucket."),
    Setting(
        "gcloud.acl",
        parse_text,
        "publicRead",
        "Predefined ACL of new objects that are not private. If empty, or if the bucket refuses "
        "ACLs, none is sent.",
    ),
    Setting("gcloud.cache_control", parse_text, "", "``Cache-Control`` header of new objects."),
    Setting(
        "gcloud.auto_create_bucket", parse_flag, "false", "Create the bucket if it is missing."
    ),
    Setting(
        "gcloud.auto_create_acl",
        parse_text,
        "",
        "Predefined ACL of a bucket that ``gcloud.auto_create_bucket`` creates.",
    ),
    Setting(
        "gcloud.uniform_bucket_level_access",
        parse_flag,
        "false",
        "Set this if the bucket has uniform bucket-level access, so that no ACL is sent.",
    ),
    Setting(
        "gcloud.timeout",
        parse_seconds,
        "5",
        "Seconds to wait for a connection or a response, for each attempt. The plugin repeats a "
        "failed request for up to 1.5 times as long.",
    ),
)
