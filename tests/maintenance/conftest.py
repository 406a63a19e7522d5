"""A server of its own for each test, on each file storage."""

import pytest


@pytest.fixture(
    params=[
        "local",
        "seaweedfs",
        pytest.param("moto", marks=pytest.mark.slow),
        pytest.param("gcs", marks=pytest.mark.slow),
    ]
)
def files(request):
    return request.param


@pytest.fixture
def site(make_server, files):
    return make_server(files)
