"""The settings: declared in one table, parsed once, refused at start when wrong.

Their prefix is ``kinto.attachment.`` in the ini file (``attachment.`` once Kinto has read it).
What applies to one bucket or collection is written
``attachment.resources.{bucket}[.{collection}].{name}``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import SettingError
from .keys import KeyTemplate
from .policy import Policy
from .setting_types import (
    one_of,
    parse_endpoint,
    parse_extensions,
    parse_flag,
    parse_mimetypes,
    parse_path,
    parse_port,
    parse_seconds,
    parse_size,
    parse_text,
    parse_url,
)

PREFIX = "attachment."


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
        one_of("auto", "local", "s3", "gcs", "memory"),
        "auto",
        "Where the files are; ``auto`` is ``gcs``, ``s3`` or ``local``, "
        "the first whose settings are there.",
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
        "its dot), ``{hash}``, ``{uuid}``, ``{record_id}``, ``{bucket_id}``, ``{collection_id}``.",
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
        parse_size,
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
        parse_seconds,
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
    Setting("aws.num_retries", parse_size, "1", "How often a request is repeated."),
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
    Setting("gcloud.timeout", parse_seconds, "10", "Seconds to wait for an answer."),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_CANONICAL = {setting.alias: setting.name for setting in SETTINGS if setting.alias}


class Settings(Mapping[str, Any]):
    """The parsed settings, by their names in :data:`SETTINGS`.

    >>> settings = read_settings({"attachment.base_path": "/srv/files", "attachment.max_size": "9"})
    >>> settings["base_path"], settings.storage, settings.policy("blog", "articles").max_size
    ('/srv/files', 'local', 9)
    """

    def __init__(
        self, values: Mapping[str, Any], resources: Mapping[tuple[str, ...], Mapping[str, Any]]
    ):
        self._values = values
        self._policies = {
            ids: self._make_policy(ids, resources) for ids in ((), *sorted(resources))
        }
        self.storage = self._find_storage()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def policy(self, bucket: str, collection: str) -> Policy:
        """What applies to a collection: its own settings, else its bucket's, else everybody's."""
        policies = self._policies
        return policies.get((bucket, collection)) or policies.get((bucket,)) or policies[()]

    @property
    def advertised_url(self) -> str | None:
        """The base URL for clients: empty if locations are whole, None if nothing is known."""
        private = any(policy.private for policy in self._policies.values())
        return self["extra.base_url"] or self["base_url"] or ("" if private else None)

    def _make_policy(self, ids: tuple[str, ...], resources: Mapping) -> Policy:
        values = {**self._values}
        for depth in range(1, len(ids) + 1):
            values.update(resources.get(ids[:depth], {}))
        where = f"resources.{'.'.join(ids)}." if ids else ""
        pattern = "{uuid}{extension}" if values["randomize"] else values["filename_pattern"]
        try:
            template = KeyTemplate(values["folder"], pattern)
        except SettingError as error:
            raise SettingError(f"{PREFIX}{where}{error.key}", error.reason) from error
        return Policy(
            template=template,
            keep_old_files=values["keep_old_files"],
            extensions=values["extensions"],
            mimetypes=values["mimetypes"],
            max_size=values["max_size"],
            check_content=values["check_content"],
            private=values["private"],
        )

    def _find_storage(self) -> str:
        needed = {"gcs": "gcloud.bucket_name", "s3": "aws.bucket_name", "local": "base_path"}
        storage = self["storage"]
        if storage == "auto":
            storage = next((name for name, key in needed.items() if self[key]), "")
            if not storage:
                raise SettingError(
                    f"{PREFIX}base_path",
                    "no storage is configured: set base_path, aws.bucket_name or "
                    "gcloud.bucket_name",
                )
        elif storage in needed and not self[needed[storage]]:
            raise SettingError(f"{PREFIX}{needed[storage]}", f"{storage} storage needs it")
        if self["aws.host"] and self["aws.endpoint_url"]:
            raise SettingError(f"{PREFIX}aws.host", "contradicts aws.endpoint_url, set one of them")
        if self["aws.port"] and not self["aws.host"]:
            raise SettingError(f"{PREFIX}aws.port", "needs aws.host")
        serves = {"redirect": ("s3", "gcs"), "accel": ("local",)}
        if storage not in serves.get(self["download"], (storage,)):
            raise SettingError(
                f"{PREFIX}download", f"{self['download']!r} is not for {storage} storage"
            )
        return storage


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """The settings of this plugin among all of Kinto's.

    :param raw: names without the ``kinto.`` prefix, values as in the ini file.
    :raises SettingError: the first that is unknown or malformed, by its name.
    """
    values = {setting.name: setting.parse(setting.default) for setting in SETTINGS}
    given: dict[str, Any] = {}
    resources: dict[tuple[str, ...], dict[str, Any]] = {}
    for key in sorted(name for name in raw if name.startswith(PREFIX)):
        name = key.removeprefix(PREFIX)
        if name.startswith("resources."):
            ids, name = _split_resource(key)
            _set(resources.setdefault(ids, {}), key, name, raw[key])
        else:
            _set(given, key, name, raw[key])
    values.update(given)
    return Settings(MappingProxyType(values), MappingProxyType(resources))


def _set(values: dict[str, Any], key: str, name: str, value: Any) -> None:
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None:
        raise SettingError(key, "is not a setting of kinto-attachment")
    try:
        parsed = setting.parse(value)
    except ValueError as error:
        raise SettingError(key, str(error)) from error
    if values.get(setting.name, parsed) != parsed:
        raise SettingError(key, f"contradicts {setting.name}, an other name of the same setting")
    values[setting.name] = parsed


def _split_resource(key: str) -> tuple[tuple[str, ...], str]:
    """``attachment.resources.blog.articles.folder`` -> ``("blog", "articles"), "folder"``"""
    parts = key.split(".")[2:]
    if len(parts) not in (2, 3) or not all(parts):
        raise SettingError(key, f"Configuration rule malformed: `{key}`")
    *ids, name = parts
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None or not setting.per_resource:
        raise SettingError(key, f"`{name}` is not a supported setting name. Read `{key}`")
    return tuple(ids), name
