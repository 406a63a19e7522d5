"""The HTTP that all doors share: reading requests, and building responses."""

from kinto.core.metrics import watch_execution_time
from kinto.core.utils import sqlalchemy
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, NewResponse
from pyramid.security import NO_PERMISSION_REQUIRED
from pyramid.tweens import EXCVIEW, INGRESS

from ..errors import AttachmentError
from .counters import count_links
from .heartbeat import heartbeat
from .response_cache import ResponseCache, execution_policy
from .responses import database_error_view, error_view, forbid_caching


def includeme(config: Configurator) -> None:
    """Add the error view, retries, the heartbeat, metrics and the response cache."""
    registry = config.registry
    plugin = registry.attachment_plugin
    # Not add_exception_view(): a batch searches all views for that of an error, and would not find
    # a view that is for exceptions only.
    config.add_view(error_view, context=AttachmentError, permission=NO_PERMISSION_REQUIRED)
    if sqlalchemy:  # PostgreSQL is an extra of Kinto
        error = sqlalchemy.exc.SQLAlchemyError
        config.add_view(database_error_view, context=error, permission=NO_PERMISSION_REQUIRED)
    registry.attachment_services = set()
    config.include(".openapi")
    config.include(".transfers")
    config.add_subscriber(forbid_caching, NewResponse)
    config.add_tween(
        "kinto_attachment.transactions.retry.tween_factory",
        under=EXCVIEW,
        over="kinto.core.events.notify_resource_events_before",
    )
    config.add_tween(
        "kinto_attachment.http.slow_clients.tween_factory",
        under=INGRESS,
        over=("pyramid_tm.tm_tween_factory", EXCVIEW),
    )
    registry.heartbeats["attachments"] = heartbeat(plugin.storage)
    config.add_subscriber(
        lambda event: watch_execution_time(
            registry.metrics, plugin.storage.backend, prefix="backend"
        ),
        ApplicationCreated,
    )
    config.add_subscriber(lambda event: count_links(registry.storage), ApplicationCreated)
    seconds = plugin.settings["images.cache_seconds"]
    registry.attachment_cache = ResponseCache(seconds, registry.attachment_images.varies)
    if seconds:
        config.set_execution_policy(execution_policy)
