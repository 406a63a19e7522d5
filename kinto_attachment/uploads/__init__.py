"""Uploads that survive, below the routes of all doors: resumable and direct ones."""

from pyramid.config import Configurator
from pyramid.events import NewResponse

from ..http.responses import add_services


def includeme(config: Configurator) -> None:
    """Add the routes of uploads. This comes before the media store, whose path for a hash would
    match them."""
    # Services read the CORS settings when they are imported, so not before Kinto is set up.
    from ..attachments.default_bucket import leave_alias
    from . import api, views
    from .direct import views as direct
    from .direct.verification import DirectVerification

    registry = config.registry
    registry.attachment_api.add(api.paths(registry.attachment_library is not None), api.SCHEMAS)
    registry.attachment_verifications.append(DirectVerification(registry.attachment_plugin))
    leave_alias(config, (*views.RECORD_SERVICES, *direct.RECORD_SERVICES))
    add_services(config, (*direct.SERVICES, *views.SERVICES))
    config.add_subscriber(views.add_version, NewResponse)
