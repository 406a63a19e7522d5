"""An emulator of Google Cloud Storage, and a service account."""

import pytest
from requests.adapters import HTTPAdapter

from tests.support.google_account import make_private_key, write_account
from tests.support.servers.gcs import as_the_real_one


@pytest.fixture
def emulator(fake_gcs, monkeypatch):
    for name, value in fake_gcs.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(HTTPAdapter, "send", as_the_real_one(HTTPAdapter.send))
    return fake_gcs


@pytest.fixture(scope="session")
def private_key():
    return make_private_key()


@pytest.fixture
def service_account(private_key, tmp_path):
    """Write the file of an account, and return its path."""
    return lambda **more: write_account(tmp_path / "account.json", private_key, **more)
