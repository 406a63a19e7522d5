"""Files for Kinto: ``kinto.includes = kinto_attachment``."""

from functools import partial
from importlib.metadata import version

from kinto.core.metrics import watch_execution_time
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, NewRequest
from pyramid.exceptions import ConfigurationError
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.settings import asbool
from pyramid.tweens import EXCVIEW

__version__ = version("kinto-attachment")


def includeme(config: Configurator) -> None:
    """Wire everything: settings, storage, routes, listeners, heartbeat, metrics, capability."""
    # Not before Kinto is set up: services take renderer and CORS settings when they are imported.
    from pyramid_storage.registry import get_file_storage_impl

    from .attachments import attribute as guard
    from .attachments import default_bucket, listeners, record_model
    from .attachments import image_views as images
    from .attachments import views as attachments
    from .errors import AttachmentError, SettingError
    from .http.heartbeat import heartbeat
    from .http.response_cache import SharedCache, execution_policy
    from .http.responses import error_view
    from .images.service import Imaging
    from .legacy.adoption import LegacyRows
    from .legacy.kept_files import KeptFiles
    from .library import views as library
    from .library import views as uploads
    from .library.schema import open_library
    from .media import views as media
    from .media.context import PRINCIPALS
    from .media.store import MediaStore
    from .media.verifier import Background, Verifier
    from .remote.unsplash import open_unsplash
    from .rows.deletion import Claims, Releases
    from .rows.links import Links
    from .rows.uploads import PendingUploads, UnclaimedUploads
    from .rows.variants import Variants
    from .settings import read_settings
    from .storage import IFileStorage, open_storage
    from .storage.pyramid_storage import PyramidStorage
    from .transactions.files import Files

    registry = config.registry
    config.add_settings({**PRINCIPALS, **config.get_settings()})
    try:
        settings = read_settings(config.get_settings())
        storage = open_storage(settings)
        registry.attachment_unsplash = open_unsplash(settings)
        registry.attachment_library = open_library(settings)
    except SettingError as error:
        raise ConfigurationError(str(error)) from error

    registry.attachment_settings = settings
    registry.attachment_storage = storage
    registry.attachment_links = Links(registry.storage)
    registry.attachment_releases = Releases(registry.storage)
    registry.attachment_claims = Claims(registry.storage)
    registry.attachment_variants = Variants(registry.storage)
    registry.attachment_unclaimed = UnclaimedUploads(registry.storage)
    registry.attachment_files = partial(
        Files,
        storage,
        registry.attachment_links,
        registry.attachment_releases,
        registry.attachment_claims,
        registry.attachment_variants,
    )
    registry.attachment_media = MediaStore(
        settings,
        storage,
        registry.attachment_links,
        PendingUploads(registry.storage),
        registry.attachment_files,
    )
    is_readonly = asbool(config.get_settings().get("readonly"))
    registry.attachment_imaging = Imaging(
        settings, storage, registry.attachment_variants, registry.attachment_files, is_readonly
    )
    registry.attachment_verifier = Background(
        lambda: Verifier(registry.attachment_media, lambda: registry.metrics),
        enabled=settings["media.verifier"] == "thread" and not is_readonly,
    )
    config.add_subscriber(lambda event: registry.attachment_verifier.look(), NewRequest)
    registry.attachment_legacy = LegacyRows(
        registry.storage,
        registry.attachment_links,
        settings["base_url"],
        KeptFiles(settings, storage, registry.attachment_links, registry.attachment_releases),
    )
    if hasattr(registry.storage, "client"):
        from .legacy.migration import AttachmentMigration  # PostgreSQL is an extra of Kinto

        config.add_migration(AttachmentMigration(registry.attachment_legacy))

    # As pyramid_storage's backends are found, under the name that the existing plugin gave it.
    registry.registerUtility(PyramidStorage(storage, settings), IFileStorage)
    config.add_request_method(get_file_storage_impl, "attachment", reify=True)

    guard.install()
    record_model.install()
    listeners.install(config)
    config.add_tween(
        "kinto_attachment.transactions.retry.tween_factory",
        under=EXCVIEW,
        over="kinto.core.events.notify_resource_events_before",
    )
    registry.attachment_cache = SharedCache(
        settings["images.cache_seconds"], registry.attachment_imaging.varies
    )
    if settings["images.cache_seconds"]:
        config.set_execution_policy(execution_policy)
    # Not an exception view only: a batch looks for the view of an error among all views.
    config.add_view(error_view, context=AttachmentError, permission=NO_PERMISSION_REQUIRED)
    is_aliased = default_bucket.is_enabled(config)
    where = rf"^/v\d+(?!{default_bucket.ALIAS})" if is_aliased else "^/"
    attachments.attachment.path_info = where
    images.attachment_image.path_info = rf"{where}.*/\d+x\d+$"
    if is_aliased:
        default_bucket.install(config)
    doors = [attachments.attachment, images.attachment_image, *media.SERVICES]
    if registry.attachment_library:
        doors += [*library.SERVICES, *images.SERVICES]
    if registry.attachment_library and registry.attachment_unsplash and not is_readonly:
        doors.append(uploads.unsplash)
    for service in doors:
        config.add_cornice_service(service)

    registry.heartbeats["attachments"] = heartbeat(storage)
    config.add_subscriber(
        lambda event: watch_execution_time(registry.metrics, storage, prefix="backend"),
        ApplicationCreated,
    )
    if registry.attachment_library:
        config.add_api_capability(
            "media_library",
            description="Describe files, and have images at any size",
            url="https://github.com/Kinto/kinto-attachment/",
            bucket=registry.attachment_library.bucket,
            collection=registry.attachment_library.collection,
        )
    base_url = settings.advertised_url
    config.add_api_capability(
        "attachments",
        description="Add file attachments to records",
        url="https://github.com/Kinto/kinto-attachment/",
        version=__version__,
        **({} if base_url is None else {"base_url": base_url}),
    )
