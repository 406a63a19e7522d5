"""Door 1: one file on a record."""

from typing import Any

from pyramid.config import Configurator

from ..http.responses import add_services
from ..plugin import URL, VERSION, Plugin


def includeme(config: Configurator) -> None:
    """Add the routes below records, and watch what happens to records."""
    # Services read the CORS settings when they are imported: not before Kinto is set up.
    from . import attribute, default_bucket, image_views, listeners, record_model, views

    config.registry.attachment_rules = []
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
    config.add_api_capability(
        "attachments",
        description="Attach a file to any record: POST, GET or DELETE {record}/attachment",
        url=URL,
        version=VERSION,
        images=config.registry.attachment_images.is_installed,
        **_limits(config.registry.attachment_plugin),
    )


def _limits(plugin: Plugin) -> dict[str, Any]:
    """Return what the capability says about files, without what does not apply: Kinto Admin fails
    on a null. Buckets and collections may have other limits."""
    policy, base_url = plugin.settings.policy("", ""), plugin.settings.advertised_url
    limits = {
        "base_url": base_url,
        "max_size": policy.max_size or None,
        "extensions": sorted(policy.extensions) or None,
        "private": policy.private,
    }
    return {name: value for name, value in limits.items() if value is not None}
