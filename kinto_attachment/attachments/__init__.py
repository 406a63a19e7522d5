"""Door 1: files on records."""

from typing import Any

from pyramid.config import Configurator

from ..http.responses import add_services
from ..http.transfers import watch
from ..plugin import URL, VERSION, Plugin


def includeme(config: Configurator) -> None:
    """Add the routes below records, and watch what happens to records."""
    # Services read the CORS settings when they are imported: not before Kinto is set up.
    from . import api, default_bucket, form_views, image_views, views
    from .writes import guard, listeners, record_model

    config.registry.attachment_rules = []
    config.registry.attachment_api.add(api.PATHS, api.SCHEMAS)
    guard.install()
    record_model.install()
    listeners.install(config)
    services = (*image_views.SERVICES, *views.SERVICES, form_views.files)
    default_bucket.leave_alias(config, services)
    if default_bucket.is_enabled(config):
        default_bucket.install(config)
    add_services(config, services)
    watch(
        config,
        "attachments",
        uploads=[
            (views.attachment, "POST"),
            (views.field, "POST"),
            (views.attachment_entry, "PUT"),
            (views.entry, "PUT"),
            (form_views.files, "POST"),
        ],
        downloads=[*views.SERVICES, *image_views.SERVICES],
    )
    config.add_api_capability(
        "attachments",
        description="Attach files to any record: POST, GET or DELETE {record}/attachment, and"
        " {record}/attachments/{field} for other fields",
        url=URL,
        version=VERSION,
        fields=True,
        resumable=True,
        direct=True,
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
