"""Door 3: the media library, whose files editors describe."""

from pyramid.config import Configurator
from pyramid.events import ContextFound

from ..http.responses import add_services
from ..plugin import URL


def includeme(config: Configurator) -> None:
    """Add the routes and the rules of the media library, if one is configured.

    :raises SettingError: if the settings of the library or of Unsplash are wrong.
    """
    # Services read the CORS settings when they are imported, so not before Kinto is set up.
    from . import image_views, views
    from .collection import open_library
    from .context import protect_collection
    from .rules import LibraryRules

    registry = config.registry
    plugin = registry.attachment_plugin
    library = registry.attachment_library = open_library(plugin.settings)
    if library is None:
        return
    registry.attachment_rules.append(LibraryRules(library))
    config.add_subscriber(protect_collection, ContextFound)
    services = [*views.SERVICES, *image_views.SERVICES]
    if library.unsplash and not plugin.is_readonly:
        services.append(views.unsplash)
    add_services(config, services)
    config.add_api_capability(
        "media_library",
        description="A library of images and other files: upload with POST /media, describe with "
        "POST /content/_media, and get images at any size from /image/{width}x{height}/{file}",
        url=URL,
        bucket=library.bucket,
        collection=library.collection,
        images=registry.attachment_images.is_installed,
        unsplash=views.unsplash in services,
    )
