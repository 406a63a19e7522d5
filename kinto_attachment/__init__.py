"""Files for Kinto: ``kinto.includes = kinto_attachment``."""

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError

from .errors import SettingError
from .plugin import VERSION

__version__ = VERSION


def includeme(config: Configurator) -> None:
    """Add files to Kinto: first what all doors share, then each door.

    :raises ConfigurationError: if the settings are wrong.
    """
    try:
        config.include(".plugin")  # settings, storage, rows, image service, migration
        config.include(".http")  # error view, retries, heartbeat, metrics, response cache
        config.include(".attachments")  # routes, listeners, the guarded attribute
        config.include(".library")  # routes and rules, if a library is configured
        config.include(".media")  # routes, verifier
    except SettingError as error:
        raise ConfigurationError(str(error)) from error
