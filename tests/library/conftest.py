"""Media libraries of different sites."""

import pytest

from tests.support.library import MediaLibrary, settings


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    """Two storages: the suites of the storages themselves check the rest."""
    return request.param


@pytest.fixture
def library(make_site, kinto, files):
    return MediaLibrary(make_site(kinto, files, **settings("site")))


@pytest.fixture
def make_library(make_server):
    """Libraries with a database and a storage of their own."""
    return lambda files="memory", **more: MediaLibrary(
        make_server(files, **settings("site", **more))
    )


@pytest.fixture
def local_library(make_site):
    """A library in memory and a folder, for what does not depend on either storage."""
    return MediaLibrary(make_site(**settings("site")))
