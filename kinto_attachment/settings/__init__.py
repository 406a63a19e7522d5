"""The settings: parsed once, and refused at start if they are wrong.

Their prefix is ``kinto.attachment.`` in the ini file, and ``attachment.`` once Kinto has read it.
A setting for one bucket or collection is written
``attachment.resources.{bucket}[.{collection}].{name}``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pyramid.settings import aslist

from ..errors import SettingError
from ..files.key import KeyTemplate
from ..files.ref import MediaRef, Ref, UploadRef
from .policy import Policy
from .table import SETTINGS

PREFIX = "attachment."

STORAGE_OPTIONS = "storage."
"""What follows the prefix in a setting that only a storage of another package understands."""

PUBLIC_MEDIA = KeyTemplate("_media", "{shard}/{hash}")
PRIVATE_MEDIA = KeyTemplate("private/_media", "{shard}/{hash}")
PENDING_MEDIA = KeyTemplate("private/_media-pending", "{uuid}")
"""Where the media store keeps its files. No id in Kinto begins like these folders."""

VARIANTS = KeyTemplate("private/_variants", "{shard}/{hash}/{uuid}")
"""Where the resized copies of an image lie: below its hash."""


_BY_NAME = {setting.name: setting for setting in SETTINGS}
_CANONICAL = {setting.alias: setting.name for setting in SETTINGS if setting.alias}


class Settings(Mapping[str, Any]):
    """The parsed settings, by their names in :data:`~kinto_attachment.settings.table.SETTINGS`.

    >>> settings = read_settings({"attachment.base_path": "/srv/files", "attachment.max_size": "9"})
    >>> settings["base_path"], settings.storage, settings.policy("blog", "articles").max_size
    ('/srv/files', 'local', 9)
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        resources: Mapping[tuple[str, ...], Mapping[str, Any]],
        is_public: bool = False,
        storage_options: Mapping[str, str] = MappingProxyType({}),
    ):
        self._values = values
        self.storage_options = storage_options
        """The settings ``attachment.storage.*``, as text, for a storage of another package."""
        self._policies = {
            ids: self._make_policy(ids, resources) for ids in ((), *sorted(resources))
        }
        self.media, self.pending = self._media_policies(is_public)
        self.variants = replace(self.pending, template=VARIANTS, max_size=0)
        self.reserved_policies = (self.media, self.pending, self.variants)
        self.storage = self._find_storage()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def policy(self, bucket: str, collection: str) -> Policy:
        """Return what applies to a collection: its own settings, else those of its bucket, else the
        general ones."""
        policies = self._policies
        return policies.get((bucket, collection)) or policies.get((bucket,)) or policies[()]

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of records: the general one, and those of single buckets and collections."""
        return tuple(self._policies.values())

    def policy_of(self, ref: Ref) -> Policy:
        """Return what applies to the owner of a blob."""
        if isinstance(ref, MediaRef):
            return self.media
        if isinstance(ref, UploadRef):
            return self.policy(self["library.bucket"], self["library.collection"])
        return self.policy(ref.bucket, ref.collection)

    def makes(self, key: str) -> bool:
        """Return whether this server could give that key to a file today."""
        return bool(self.matching_policies(key))

    def makes_once(self, key: str) -> bool:
        """Return whether this server gives that key to one file only, and never again."""
        return any(policy.template.unique for policy in self.matching_policies(key))

    def matching_policies(self, key: str) -> list[Policy]:
        """Return the policies that can have given a file that key."""
        policies = (*self.policies, *self.reserved_policies)
        return [policy for policy in policies if policy.template.makes(key)]

    @property
    def advertised_url(self) -> str | None:
        """The base URL for clients: empty if locations are complete URLs, None if it is unknown."""
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
            if template.shared and values["private"]:
                # The same bytes may also be public: as another object, with another ACL.
                template = KeyTemplate(f"private/{values['folder'].lstrip('/')}", pattern)
        except SettingError as error:
            raise SettingError(f"{PREFIX}{where}{error.key}", error.reason) from error
        if re.match("(private/)?_(media|variants)", template.text):
            raise SettingError(
                f"{PREFIX}{where}folder", "is reserved for the media store and for resized images"
            )
        return Policy(
            template=template,
            keep_old_files=values["keep_old_files"],
            extensions=values["extensions"],
            mimetypes=values["mimetypes"],
            max_size=values["max_size"],
            check_content=values["check_content"],
            private=values["private"],
        )

    def _media_policies(self, is_public: bool) -> tuple[Policy, Policy]:
        """Return the policies of the media store, and of its uploads whose hash is unchecked. They
        take files of any extension and keep no old ones."""
        kept = replace(
            self._policies[()],
            template=PUBLIC_MEDIA if is_public else PRIVATE_MEDIA,
            keep_old_files=False,
            extensions=frozenset(),
            private=not is_public,
        )
        return kept, replace(kept, template=PENDING_MEDIA, private=True)

    def _find_storage(self) -> str:
        needed = {"gcs": "gcloud.bucket_name", "s3": "aws.bucket_name", "local": "base_path"}
        storage = self["storage"]
        if self.storage_options and storage in ("auto", "memory", *needed):
            key = f"{PREFIX}{STORAGE_OPTIONS}{min(self.storage_options)}"
            raise SettingError(key, "is only for a storage of another package, see storage")
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
            raise SettingError(
                f"{PREFIX}aws.host", "contradicts aws.endpoint_url, set only one of them"
            )
        if self["aws.port"] and not self["aws.host"]:
            raise SettingError(f"{PREFIX}aws.port", "needs aws.host")
        # open_storage() judges the storages of other packages.
        unable = {"redirect": ("local", "memory"), "accel": ("s3", "gcs", "memory")}
        if storage in unable.get(self["download"], ()):
            raise SettingError(
                f"{PREFIX}download", f"{self['download']!r} is not for {storage} storage"
            )
        return storage


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """Read the settings of this plugin among all of Kinto's.

    :param raw: names without the ``kinto.`` prefix, values as in the ini file.
    :raises SettingError: if one is unknown or malformed; it names the first of them.
    """
    values = {setting.name: setting.parse(setting.default) for setting in SETTINGS}
    options: dict[str, str] = {}
    given: dict[str, Any] = {}
    resources: dict[tuple[str, ...], dict[str, Any]] = {}
    for key in sorted(name for name in raw if name.startswith(PREFIX)):
        name = key.removeprefix(PREFIX)
        if name.startswith("resources."):
            ids, name = _split_resource(key)
            _set(resources.setdefault(ids, {}), key, name, raw[key])
        elif name.startswith(STORAGE_OPTIONS):
            options[name.removeprefix(STORAGE_OPTIONS)] = str(raw[key])
        else:
            _set(given, key, name, raw[key])
    values.update(given)
    is_public = "system.Everyone" in aslist(raw.get("media_read_principals", ""))
    return Settings(
        MappingProxyType(values), MappingProxyType(resources), is_public, MappingProxyType(options)
    )


def _set(values: dict[str, Any], key: str, name: str, value: Any) -> None:
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None:
        raise SettingError(key, "is not a setting of kinto-attachment")
    try:
        parsed = setting.parse(value)
    except ValueError as error:
        raise SettingError(key, str(error)) from error
    if values.get(setting.name, parsed) != parsed:
        raise SettingError(key, f"contradicts {setting.name}, another name of the same setting")
    values[setting.name] = parsed


def _split_resource(key: str) -> tuple[tuple[str, ...], str]:
    """Return the ids and the name in a key.

    ``attachment.resources.blog.articles.folder`` -> ``("blog", "articles"), "folder"``
    """
    parts = key.split(".")[2:]
    if len(parts) not in (2, 3) or not all(parts):
        raise SettingError(key, f"Configuration rule malformed: `{key}`")
    *ids, name = parts
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None or not setting.per_resource:
        raise SettingError(key, f"`{name}` is not a supported setting name. Read `{key}`")
    return tuple(ids), name
