"""The settings: they are parsed once, and a wrong one stops the server at its start.

Their prefix is ``kinto.attachment.`` in the ini file, and ``attachment.`` after Kinto has read the
file. The name of a setting for one bucket or collection is
``attachment.resources.{bucket}[.{collection}[.{field}]].{name}``. Errors name settings as the ini
file does.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from pyramid.settings import aslist

from ..errors import SettingError
from ..files.field import DEFAULT_FIELDS, Fields
from ..files.key import KeyTemplate, folders_of, is_reserved
from ..files.ref import ATTRIBUTE, MediaRef, Ref, UploadRef
from .policy import Policy
from .reserved import (
    OLDER_VARIANTS,
    PENDING_MEDIA,
    PRIVATE,
    PRIVATE_MEDIA,
    PUBLIC_MEDIA,
    STAGED,
    VARIANTS,
)
from .setting import INI_PREFIX, Setting
from .table import SETTINGS

logger = logging.getLogger(__name__)

PREFIX = "attachment."

STORAGE_OPTIONS = "storage."
"""The beginning of names, after the prefix, of settings for a storage of another package."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_CANONICAL = {setting.alias: setting.name for setting in SETTINGS if setting.alias}

_SEE_TABLE = "the page 'Settings' of the documentation lists all settings"

REMOVED = ("gzipped", "use_content_encoding")
"""Settings that kinto-attachment 0.7 to 6.x had. Version 7 and later ignore them."""


class Settings(Mapping[str, Any]):
    """The parsed settings, by their names in :data:`~kinto_attachment.settings.table.SETTINGS`.

    :param values: the general settings.
    :param resources: the settings of single buckets, collections and fields, by ``(bucket,)``,
        ``(bucket, collection)`` or ``(bucket, collection, field)``.
    :param is_public: whether everyone may read the media store.
    :param storage_options: the settings ``attachment.storage.*``, without that prefix.
    :ivar media: the policy of the media store.
    :ivar pending: the policy of its uploads whose hash is not checked yet.
    :ivar staged: the policy of what has arrived of unfinished uploads.
    :ivar variants: the policy of resized copies.
    :ivar reserved_policies: these four.
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
        library = (values["library.bucket"], values["library.collection"])
        own = {*resources, library} if library[0] else {*resources}
        self._policies = {
            ids: self._make_policy(ids, resources, library) for ids in ((), *sorted(own))
        }
        templates = [policy.template for policy in self.policies]
        self.folders = folders_of(templates)
        for template in templates:
            template.keep_clear_of(self.folders)
        self.media, self.pending = self._media_policies(is_public)
        self.variants = replace(self.pending, template=VARIANTS, max_size=0)
        self.staged = replace(self.pending, template=STAGED, max_size=0)
        self.reserved_policies = (self.media, self.pending, self.staged, self.variants)
        self._older = (replace(self.variants, template=OLDER_VARIANTS), *self._older_private())
        self.storage = self._find_storage()

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def policy(self, bucket: str, collection: str, field: str = ATTRIBUTE) -> Policy:
        """Return the policy of a field. Its own settings come before those of its collection, these
        before those of the bucket, and these before the general ones."""
        policies, ids = self._policies, (bucket, collection, field)
        found = (policies[ids[:depth]] for depth in (3, 2, 1, 0) if ids[:depth] in policies)
        return next(found)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All policies of records: the general one, and those of single buckets, collections and
        fields."""
        return tuple(self._policies.values())

    @property
    def has_other_fields(self) -> bool:
        """Whether any collection has other fields than those that need no setting."""
        return not all(policy.has_default_fields for policy in self.policies)

    def policy_of(self, ref: Ref) -> Policy:
        """Return the policy that applies to the owner of a blob."""
        if isinstance(ref, MediaRef):
            return self.media
        if isinstance(ref, UploadRef):
            return self.policy(self["library.bucket"], self["library.collection"])
        return self.policy(ref.record.bucket, ref.record.collection, ref.field)

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
        """Return the policies under which a file can get this key, or could in an older version."""
        policies = (*self.policies, *self.reserved_policies, *self._older)
        return [policy for policy in policies if policy.template.makes(key)]

    @property
    def advertised_url(self) -> str | None:
        """The base URL for clients. Without either setting it is empty if any policy is private,
        whose locations are complete URLs, and None otherwise."""
        private = any(policy.private for policy in self._policies.values())
        return self["extra.base_url"] or self._site_url or ("" if private else None)

    def _make_policy(
        self, ids: tuple[str, ...], resources: Mapping, library: tuple[str, str]
    ) -> Policy:
        """Return the policy of a bucket, collection or field, or the general one.

        :param ids: ``()``, ``(bucket,)``, ``(bucket, collection)`` or
            ``(bucket, collection, field)``.
        :param library: the ids of the media library.
        :raises SettingError: if the folder or the pattern is wrong, or the field is not declared.
        """
        values = {**self._values}
        for depth in range(1, len(ids) + 1):
            values.update(resources.get(ids[:depth], {}))
        where = f"resources.{'.'.join(ids)}." if ids else ""
        if ids[:2] == library:
            if values["fields"] != DEFAULT_FIELDS and "fields" in resources.get(ids, ()):
                reason = f"must be {ATTRIBUTE!r}: the media library has this one field"
                raise SettingError(f"{INI_PREFIX}{where}fields", reason)
            values["fields"] = DEFAULT_FIELDS
        _check_field(ids[2:], f"{INI_PREFIX}{where}", resources.get(ids, {}), values["fields"])
        naming = {"pattern": values["filename_pattern"], "randomize": values["randomize"]}
        try:
            template = KeyTemplate(values["folder"], **naming)
            first = template.text.partition("/")[0]
            if is_reserved(first):
                setting = "folder" if values["folder"] else "filename_pattern"
                reason = f"is reserved for the plugin itself: use another name than {first}"
                raise SettingError(setting, reason)
            if values["private"]:
                # The same bytes may also be public, in an object with another ACL.
                folder = PRIVATE + values["folder"].lstrip("/")
                template = KeyTemplate(folder, **naming, is_own=True)
        except SettingError as error:
            raise SettingError(f"{INI_PREFIX}{where}{error.key}", error.reason) from error
        return Policy(
            template=template,
            keep_old_files=values["keep_old_files"],
            extensions=values["extensions"],
            mimetypes=values["mimetypes"],
            max_size=values["max_size"],
            check_content=values["check_content"],
            private=values["private"],
            fields=values["fields"],
            max_files=values["max_files"],
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

    def _older_private(self) -> Iterator[Policy]:
        """Yield policies with the keys that private files had when they lay beside public ones."""
        for policy in self.policies:
            if policy.private and not policy.template.shared:
                text = policy.template.text.removeprefix(PRIVATE)
                yield replace(policy, template=KeyTemplate("", text))

    def _find_storage(self) -> str:
        """Return the name of the storage.

        :raises SettingError: if none is configured, or if the settings of storages contradict each
            other.
        """
        needed = {"gcs": "gcloud.bucket_name", "s3": "aws.bucket_name", "local": "base_path"}
        storage = self["storage"]
        if self.storage_options and storage in ("auto", "memory", *needed):
            key = f"{INI_PREFIX}{STORAGE_OPTIONS}{min(self.storage_options)}"
            reason = f"is only for a storage of another package, which {INI_PREFIX}storage names"
            raise SettingError(key, reason)
        if storage == "auto":
            storage = next((name for name, key in needed.items() if self[key]), "")
            if not storage:
                others = " or ".join(f"{INI_PREFIX}{needed[name]}" for name in ("s3", "gcs"))
                raise SettingError(
                    f"{INI_PREFIX}base_path", f"no storage is configured: set this, {others}"
                )
        elif storage in needed and not self[needed[storage]]:
            raise SettingError(
                f"{INI_PREFIX}{needed[storage]}", f"must be set for {storage} storage"
            )
        if self["aws.host"] and self["aws.endpoint_url"]:
            raise SettingError(
                f"{INI_PREFIX}aws.host",
                f"conflicts with {INI_PREFIX}aws.endpoint_url: set only one of them",
            )
        if self["aws.port"] and not self["aws.host"]:
            raise SettingError(
                f"{INI_PREFIX}aws.port", f"has no effect without {INI_PREFIX}aws.host: set that too"
            )
        # open_storage() checks whether a storage of another package can do this.
        unable = {"redirect": ("local", "memory"), "accel": ("s3", "gcs", "memory")}
        if storage in unable.get(self["download"], ()):
            raise SettingError(
                f"{INI_PREFIX}download",
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
            logger.warning("%s has no effect: files are stored as they were sent", _in_ini(name))
        elif name.startswith("resources."):
            ids, name = _split_resource(name)
            _set(resources.setdefault(ids, {}), f"resources.{'.'.join(ids)}.", name, raw[key])
        elif name.startswith(STORAGE_OPTIONS):
            options[name.removeprefix(STORAGE_OPTIONS)] = str(raw[key])
        else:
            _set(given, "", name, raw[key])
    values.update(given)
    is_public = "system.Everyone" in aslist(raw.get("media_read_principals", ""))
    return Settings(
        MappingProxyType(values), MappingProxyType(resources), is_public, MappingProxyType(options)
    )


def _in_ini(name: str) -> str:
    return f"{INI_PREFIX}{name}"


def _set(values: dict[str, Any], where: str, name: str, value: Any) -> None:
    """Parse a setting and add it to the values.

    :param where: what stands before its name for one bucket or collection, otherwise empty.
    :param name: its name in the table, or an older one.
    :raises SettingError: if it is unknown, malformed, or set to another value under another name.
    """
    key = _in_ini(where + name)
    setting = _find(name, where)
    try:
        parsed = setting.parse(value)
    except ValueError as error:
        raise SettingError(key, str(error)) from error
    if values.get(setting.name, parsed) != parsed:
        older = _in_ini(where + setting.alias)
        reason = f"has a different value under its older name {older}: set only one of them"
        raise SettingError(_in_ini(where + setting.name), reason)
    values[setting.name] = parsed


def _find(name: str, where: str) -> Setting:
    """Return a setting by its name in the table, or by an older one.

    :param where: what stands before its name for one bucket or collection, otherwise empty.
    :raises SettingError: if there is none.
    """
    setting = _BY_NAME.get(_CANONICAL.get(name, name))
    if setting is None:
        names = [each for each in (*_BY_NAME, *_CANONICAL) if not where or _is_per_resource(each)]
        nearest = get_close_matches(name, names, n=1)
        hint = f"did you mean {_in_ini(where + nearest[0])}?" if nearest else _SEE_TABLE
        raise SettingError(_in_ini(where + name), f"unknown; {hint}")
    return setting


def _is_per_resource(name: str) -> bool:
    return _BY_NAME[_CANONICAL.get(name, name)].per_resource


def _check_field(
    field: tuple[str, ...], where: str, own: Mapping[str, Any], fields: Fields
) -> None:
    """Check the settings of a single field.

    :param field: its name, or nothing for settings of a collection or bucket.
    :param where: the beginning of their names in the ini file.
    :param own: the settings.
    :param fields: the fields of its collection.
    :raises SettingError: if the field is not declared, or cannot have one of these settings.
    """
    for name in field:
        if "fields" in own:
            raise SettingError(f"{where}fields", "cannot be set for a field")
        if name not in fields:
            declared = " ".join(str(each) for each in fields.values())
            reason = f"{name!r} is not a field of this collection, which has: {declared}"
            raise SettingError(f"{where}{min(own)}", reason)
        if "max_files" in own and not fields[name].is_list:
            reason = f"has no effect on a field with one file: declare it as {name}[]"
            raise SettingError(f"{where}max_files", reason)


def _split_resource(name: str) -> tuple[tuple[str, ...], str]:
    """Return the ids and the name in the name of a setting for one bucket or collection.

    :raises SettingError: if the name is malformed, or if the setting cannot be set for a bucket.

    >>> _split_resource("resources.blog.articles.folder")
    (('blog', 'articles'), 'folder')
    """
    parts = name.split(".")[1:]
    if len(parts) not in (2, 3, 4) or not all(parts):
        below = ("", "{collection}.", "{collection}.{field}.")
        forms = (_in_ini(f"resources.{{bucket}}.{ids}{{setting}}") for ids in below)
        raise SettingError(_in_ini(name), f"is not of the form {' or '.join(forms)}")
    *ids, last = parts
    setting = _find(last, f"resources.{'.'.join(ids)}.")
    if not setting.per_resource:
        names = ", ".join(each.name for each in SETTINGS if each.per_resource)
        reason = f"{last!r} cannot be set for a bucket or collection; these can: {names}"
        raise SettingError(_in_ini(name), reason)
    return tuple(ids), last
