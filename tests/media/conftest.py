"""The media store of each site, and the storages that it is tested on."""

import pytest

from tests.support.media import MediaClient


@pytest.fixture(params=["local", "seaweedfs", pytest.param("gcs", marks=pytest.mark.slow)])
def files(request):
    return request.param


@pytest.fixture
def media(make_site, kinto, files):
    return MediaClient(make_site(kinto, files))
