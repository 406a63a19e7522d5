"""The settings: they are parsed once, and a wrong one stops the server at its start.

Their prefix is ``kinto.attachment.`` in the ini file, and ``attachment.`` after Kinto has read the
file. The name of a setting for one bucket or collection is
``attachment.resources.{bucket}[.{collection}].{name}``.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pyramid.settings import aslist

from ..errors import SettingError
from ..files.key import KeyTemplate, folders_of, is_reserved
from ..files.ref import MediaRef, Ref, UploadRef
from .policy import Policy
from .table import SETTINGS

logger = logging.getLogger(__name__)

PREFIX = "attachment."

STORAGE_OPTIONS = "storage."
"""The beginning of names, after the prefix, of settings for a storage of another package."""

PUBLIC_MEDIA = KeyTemplate("_media", "{shard}/{hash}", is_own=True)
PRIVATE_MEDIA = KeyTemplate("private/_media", "{shard}/{hash}", is_own=True)
PENDING_MEDIA = KeyTemplate("private/_media-pending", "{uuid}", is_own=True)
"""The keys of the media store. They cannot collide with the keys of records, because those never
begin with a reserved segment."""

VARIANTS = KeyTemplate("private/_variants", "{shard}/{hash}/{uuid}", is_own=True)
"""The keys of resized copies, below the hash of their image."""


_BY_NAME = {setting.name: setting for setting in SETTINGS}
_CANONICAL = {setting.alias: setting.name for setting in SETTINGS if setting.alias}

REMOVED = ("gzipped", "use_content_encoding")
"""Settings that kinto-attachment 0.7 to 6.x had. Version 7 and later ignore them."""


class Settings(Mapping[str, Any]):
    """The parsed settings, by their names in :data:`~kinto_attachment.settings.table.SETTINGS`.

    :param values: the general settings.
    :param resources: the settings of single buckets and collections, by ``(bucket,)`` or
        ``(bucket, collection)``.
    :param is_public: whether everyone may read the media store.
    :param storage_options: the settings ``attachment.storage.*``, without that prefix.
    :ivar media: the policy of the media store.
    :ivar pending: the policy of its uploads whose hash is not checked yet.
    :ivar variants: the policy of resized copies.
    :ivar reserved_policies: these three.
    :ivar folders: a pattern for the folders of all files of records.
    :ivar storage: the name of the storage, never ``auto``.
    :raises SettingError: if settings contradict each other, or if a needed one is missing.

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
        self._site_url = values["base_url"]
        below = values["prefix"]
        self._values = {
            **values,
            "base_url": f"{values['base_url']}{below}",
            "accel_path": f"{values['accel_path']}{below}",
        }
        self.storage_options = storage_options
        """The settings ``attachment.storage.*``, unparsed, for a storage of another package."""
        self._policies = {
            ids: self._make_policy(ids, resources) for ids in ((), *sorted(resources))
        }
        templates = [policy.template for policy in self.policies]
        self.folders = folders_of(templates)
        for template in templates:
            template.keep_clear_of(self.folders)
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
        """Return the policy of a collection. Its own settings come before those of its bucket, and
        these before the general ones."""
        policies = self._policies
        return policies.get((bucket, collection)) or policies.get((bucket,)) or policies[()]

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All policies of records: the general one, and those of single buckets and collections."""
        return tuple(self._policies.values())

    def policy_of(self, ref: Ref) -> Policy:
        """Return the policy that applies to the owner of a blob."""
        if isinstance(ref, MediaRef):
            return self.media
        if isinstance(ref, UploadRef):
            return self.policy(self["library.bucket"], self["library.collection"])
        return self.policy(ref.bucket, ref.collection)

    def makes(self, key: str) -> bool:
        """Return whether a file could get this key under the present settings."""
        return bool(self.matching_policies(key))

    def makes_once(self, key: str) -> bool:
        """Return whether this key can only ever belong to a single file."""
        return any(policy.template.unique for policy in self.matching_policies(key))

    def makes_again(self, key: str) -> bool:
        """Return whether this key can belong to other bytes once it is free."""
        templates = [policy.template for policy in self.matching_policies(key)]
        return any(not (template.unique or template.shared) for template in templates)

    def matching_policies(self, key: str) -> list[Policy]:
        """Return the policies under which a file can get this key."""
        policies = (*self.policies, *self.reserved_policies)
        return [policy for policy in policies if policy.template.makes(key)]

    @property
    def advertised_url(self) -> str | None:
        """The base URL for clients. Without either setting it is empty if any policy is private,
        whose locations are complete URLs, and None otherwise."""
        private = any(policy.private for policy in self._policies.values())
        return self["extra.base_url"] or self._site_url or ("" if private else None)

    def _make_policy(self, ids: tuple[str, ...], resources: Mapping) -> Policy:
        """Return the policy of a bucket or collection, or the general one.

        :param ids: ``()``, ``(bucket,)`` or ``(bucket, collection)``.
        :raises SettingError: if the folder or the pattern is wrong.
        """
        values = {**self._values}
        for depth in range(1, len(ids) + 1):
            values.update(resources.get(ids[:depth], {}))
        where = f"resources.{'.'.join(ids)}." if ids else ""
        naming = {"pattern": values["filename_pattern"], "randomize": values["randomize"]}
        try:
            template = KeyTemplate(values["folder"], **naming)
            first = template.text.partition("/")[0]
            if is_reserved(first):
                setting = "folder" if values["folder"] else "filename_pattern"
                reason = f"is reserved for the plugin itself: use another name than {first}"
                raise SettingError(setting, reason)
            if template.shared and values["private"]:
                # The same bytes may also be public. They need an object of their own then, because
                # public and private objects have different ACLs.
                folder = f"private/{values['folder'].lstrip('/')}"
                template = KeyTemplate(folder, **naming, is_own=True)
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

    def _media_policies(self, is_public: bool) -> tuple[Policy, Policy]:
        """Return the policies of the media store and of its uploads whose hash is not checked yet.
        Both accept every extension and keep no old files."""
        kept = replace(
            self._policies[()],
            template=PUBLIC_MEDIA if is_public else PRIVATE_MEDIA,
            keep_old_files=False,
            extensions=frozenset(),
            private=not is_public,
        )
        return kept, replace(kept, template=PENDING_MEDIA, private=True)

    def _find_storage(self) -> str:
        """Return the name of the storage.

        :raises SettingError: if none is configured, or if the settings of storages contradict each
            other.
        """
        needed = {"gcs": "gcloud.bucket_name", "s3": "aws.bucket_name", "local": "base_path"}
        storage = self["storage"]
        if self.storage_options and storage in ("auto", "memory", *needed):
            key = f"{PREFIX}{STORAGE_OPTIONS}{min(self.storage_options)}"
            reason = "is only for a storage of another package, which attachment.storage names"
            raise SettingError(key, reason)
        if storage == "auto":
            storage = next((name for name, key in needed.items() if self[key]), "")
            if not storage:
                raise SettingError(
                    f"{PREFIX}base_path",
                    "no storage is configured: set base_path, aws.bucket_name or "
                    "gcloud.bucket_name",
                )
        elif storage in needed and not self[needed[storage]]:
            raise SettingError(f"{PREFIX}{needed[storage]}", f"must be set for {storage} storage")
        if self["aws.host"] and self["aws.endpoint_url"]:
            raise SettingError(
                f"{PREFIX}aws.host", "conflicts with aws.endpoint_url: set only one of them"
            )
        if self["aws.port"] and not self["aws.host"]:
            raise SettingError(f"{PREFIX}aws.port", "has no effect without aws.host: set that too")
        # open_storage() checks whether a storage of another package can do this.
        unable = {"redirect": ("local", "memory"), "accel": ("s3", "gcs", "memory")}
        if storage in unable.get(self["download"], ()):
            raise SettingError(
                f"{PREFIX}download",
                f"{self['download']!r} is not possible with {storage} storage: use 'stream'",
            )
        return storage


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """Return the parsed settings of this plugin.

    :param raw: all settings of Kinto: names without the ``kinto.`` prefix, values as in the ini
        file.
    :raises SettingError: if a setting is unknown or malformed, or conflicts with another one. It
        names the first of them.
    """
    values = {setting.name: setting.parse(setting.default) for setting in SETTINGS}
    options: dict[str, str] = {}
    given: dict[str, Any] = {}
    resources: dict[tuple[str, ...], dict[str, Any]] = {}
    for key in sorted(name for name in raw if name.startswith(PREFIX)):
        name = key.removeprefix(PREFIX)
        if name.rpartition(".")[2] in REMOVED:
            logger.warning("%s has no effect: files are stored as they were sent", key)
        elif name.startswith("resources."):
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
    """Parse a setting and add it to the values.

    :param key: its full name, for errors.
    :param name: its name in the table, or an older one.
    :raises SettingError: if it is unknown, malformed, or set to another value under another name.
    """
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None:
        nearest = get_close_matches(name, [*_BY_NAME, *_CANONICAL], n=1)
        hint = f": did you mean {PREFIX}{nearest[0]}?" if nearest else ""
        raise SettingError(key, f"is not a setting of kinto-attachment{hint}")
    try:
        parsed = setting.parse(value)
    except ValueError as error:
        raise SettingError(key, str(error)) from error
    if values.get(setting.name, parsed) != parsed:
        reason = f"is another name of {setting.name}, which has a different value: set only one"
        raise SettingError(key, reason)
    values[setting.name] = parsed


def _split_resource(key: str) -> tuple[tuple[str, ...], str]:
    """Return the ids and the name in the key of a setting for one bucket or collection.

    :raises SettingError: if the key is malformed, or if the setting cannot be set for a bucket.

    >>> _split_resource("attachment.resources.blog.articles.folder")
    (('blog', 'articles'), 'folder')
    """
    parts = key.split(".")[2:]
    if len(parts) not in (2, 3) or not all(parts):
        reason = (
            "expected resources.{bucket}.{setting} or resources.{bucket}.{collection}.{setting}"
        )
        raise SettingError(key, reason)
    *ids, name = parts
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None or not setting.per_resource:
        names = ", ".join(each.name for each in SETTINGS if each.per_resource)
        reason = f"{name!r} cannot be set for a bucket or collection; these can: {names}"
        raise SettingError(key, reason)
    return tuple(ids), name
