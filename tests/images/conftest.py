"""Fixtures: what resizes the images of the tests."""

import pytest

from tests.support import images


@pytest.fixture(scope="module")
def workers():
    """A resizer with a worker process of its own."""
    resizer = images.BytesResizer()
    yield resizer
    resizer.close()
