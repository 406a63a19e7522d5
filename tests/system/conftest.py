"""Fixtures of whole servers."""

import pytest

from tests.support.library import MediaLibrary
from tests.support.library import settings as library_settings
from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import Site


@pytest.fixture(scope="session")
def two_processes(kinto_settings, file_settings, tmp_path_factory):
    """Two processes of one server. They share a database, a folder and a media library."""
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings("local"),
        **library_settings("site"),
    }
    site = Site(**settings)
    MediaLibrary(site)
    site.close()
    with GunicornProcesses(settings, tmp_path_factory.mktemp("two-processes")) as server:
        server.settings = settings
        yield server
