"""Door 2: the media store, which keeps bytes by their hash."""

from pyramid.config import Configurator
from pyramid.events import NewRequest

from ..http.responses import add_services
from ..http.transfers import watch
from ..plugin import URL


def includeme(config: Configurator) -> None:
    """Add the routes of the media store, and the verifier of uploads."""
    # Services read the CORS settings when they are imported, so not before Kinto is set up.
    from . import api, views
    from .context import PRINCIPALS
    from .store import MediaStore
    from .verification import PendingVerification
    from .verifier import Background, Verifier

    config.add_settings({**PRINCIPALS, **config.get_settings()})
    registry = config.registry
    plugin = registry.attachment_plugin
    store = registry.attachment_media = MediaStore(plugin)
    kinds = registry.attachment_verifications
    kinds.append(PendingVerification(store))
    store.background = Background(
        lambda: Verifier(plugin, kinds),
        enabled=plugin.settings["media.verifier"] == "thread" and not plugin.is_readonly,
    )
    config.add_subscriber(lambda event: store.background.look(), NewRequest)
    registry.attachment_api.add(api.PATHS, api.SCHEMAS)
    if registry.attachment_library:
        registry.attachment_api.add(api.with_library())
    add_services(config, views.SERVICES)
    uploads = [(views.media, "POST"), (views.medium, "POST"), (views.medium, "PUT")]
    watch(config, views.door_of, uploads, downloads=[views.medium])
    max_size = plugin.settings.media.max_size
    config.add_api_capability(
        "media_store",
        description="Keep bytes under their SHA-256: POST /media, then GET /media/{hash}",
        url=URL,
        resumable=True,
        direct=True,
        **({"max_size": max_size} if max_size else {}),
    )
