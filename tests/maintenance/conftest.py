"""A server of its own for each test, on each file storage. All tests also run with one field of
another name."""

import pytest

from tests.support.other_field import field_name, make_server, make_site

__all__ = ["field_name", "make_server", "make_site"]


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
