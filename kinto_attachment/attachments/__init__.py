"""Door 1: one file on a record."""

from pyramid.config import Configurator

from ..http.responses import add_services
from ..http.transfers import watch


def includeme(config: Configurator) -> None:
    """Add the routes below records, and watch what happens to records."""
    # Services read the CORS settings when they are imported: not before Kinto is set up.
    from . import api, attribute, default_bucket, image_views, listeners, record_model, views

    config.registry.attachment_rules = []
    config.registry.attachment_api.add(api.PATHS, api.SCHEMAS)
    attribute.install()
    record_model.install()
    listeners.install(config)
    is_aliased = default_bucket.is_enabled(config)
    path_info = rf"^/v\d+(?!{default_bucket.ALIAS})" if is_aliased else "^/"
    views.attachment.path_info = path_info
    image_views.attachment_image.path_info = rf"(?s){path_info}.*/\d+x\d+$"
    if is_aliased:
        default_bucket.install(config)
    add_services(config, (views.attachment, image_views.attachment_image))
    watch(
        config,
        "attachments",
        uploads=[(views.attachment, "POST")],
        downloads=[views.attachment, image_views.attachment_image],
    )
