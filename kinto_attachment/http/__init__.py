"""What the doors share on the wire."""

from kinto.core.metrics import watch_execution_time
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.tweens import EXCVIEW

from ..errors import AttachmentError
from .heartbeat import heartbeat
from .response_cache import ResponseCache, execution_policy
from .responses import error_view


def includeme(config: Configurator) -> None:
    """Add the error view, retries, the heartbeat, metrics and the response cache."""
    registry = config.registry
    plugin = registry.attachment_plugin
    # Not an exception view only: a batch looks for the view of an error among all views.
    config.add_view(error_view, context=AttachmentError, permission=NO_PERMISSION_REQUIRED)
    config.add_tween(
        "kinto_attachment.transactions.retry.tween_factory",
        under=EXCVIEW,
        over="kinto.core.events.notify_resource_events_before",
    )
    registry.heartbeats["attachments"] = heartbeat(plugin.storage)
    config.add_subscriber(
        lambda event: watch_execution_time(registry.metrics, plugin.storage, prefix="backend"),
        ApplicationCreated,
    )
    seconds = plugin.settings["images.cache_seconds"]
    registry.attachment_cache = ResponseCache(seconds, registry.attachment_images.varies)
    if seconds:
        config.set_execution_policy(execution_policy)
