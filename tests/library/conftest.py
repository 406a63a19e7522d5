"""Fixtures: media libraries on sites of several kinds."""

import pytest

from tests.support.library import MediaLibrary, settings


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    """Run on two file storages only: each storage has a test suite of its own."""
    return request.param


@pytest.fixture
def library(make_site, kinto, files):
    """Return the library of a site on each Kinto storage and each file storage."""
    return MediaLibrary(make_site(kinto, files, **settings("site")))


@pytest.fixture
def make_library(make_server):
    """Return a function that makes a library with a database and a file storage of its own."""
    return lambda files="memory", **more: MediaLibrary(
        make_server(files, **settings("site", **more))
    )


@pytest.fixture
def local_library(make_site):
    """Return a library with records in memory and files in a folder, for tests that depend on
    neither storage."""
    return MediaLibrary(make_site(**settings("site")))
