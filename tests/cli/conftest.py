"""A server on PostgreSQL with files in a folder, and its ini file."""

import logging

import pytest

from kinto_attachment.cli import main
from kinto_attachment.maintenance import fsck
from tests.support.servers.wsgi import write_ini
from tests.support.site import SETTINGS, Site


@pytest.fixture(autouse=True)
def logging_as_before():
    """A command silences some loggers of its process, which is that of other tests here."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    levels = {logger: logger.level for logger in loggers}
    yield
    for logger in [logging.getLogger(name) for name in logging.root.manager.loggerDict]:
        logger.setLevel(levels.get(logger, logging.NOTSET))


@pytest.fixture
def settings(make_database, tmp_path):
    return {
        **SETTINGS,
        **make_database(),
        "kinto.attachment.base_path": str(tmp_path / "files"),
    }


@pytest.fixture
def ini(settings, tmp_path):
    return write_ini(tmp_path / "kinto.ini", settings)


@pytest.fixture
def site(settings):
    site = Site(**settings)
    yield site
    site.close()


@pytest.fixture
def record(site):
    record = site.collection().record()
    record.upload(b"content")
    return record


@pytest.fixture
def run(ini, capsys, monkeypatch):
    """Run a command; return its exit status, its output lines and its messages."""

    # No upload is under way, so fsck need not wait for any.
    monkeypatch.setattr(fsck, "PAUSE_SECONDS", 0)

    def run(*arguments):
        capsys.readouterr()
        status = main([arguments[0], "--ini", str(ini), *arguments[1:]])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run
