"""Files for Kinto: ``kinto.includes = kinto_attachment``."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from .errors import SettingError

if TYPE_CHECKING:  # the commands that only send HTTP requests start without Pyramid
    from pyramid.config import Configurator

__version__ = version("kinto-attachment")


def includeme(config: "Configurator") -> None:
    """Add files to Kinto: first what all doors share, then each door.

    :raises ConfigurationError: if the settings are wrong.
    """
    from pyramid.exceptions import ConfigurationError

    try:
        config.include(".plugin")  # settings, storage, rows, image service, migration
        config.include(".http")  # error view, retries, heartbeat, metrics, response cache
        config.include(".attachments")  # routes, listeners, the guarded attribute
        config.include(".library")  # routes and rules, if a library is configured
        config.include(".uploads")  # routes of resumable uploads, for all doors
        config.include(".media")  # routes, verifier
    except SettingError as error:
        raise ConfigurationError(str(error)) from error
