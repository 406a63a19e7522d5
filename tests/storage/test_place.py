"""Where files are stored: what a server logs when it starts."""

import logging

import pytest

from tests.support.site import Site

S3 = {
    "kinto.attachment.aws.bucket_name": "files",
    "kinto.attachment.aws.endpoint_url": "http://127.0.0.1:9",
}


@pytest.fixture
def logged(caplog, tmp_path):
    """Return what a new server logs about its storage, with the level."""

    def logged(**settings: str) -> tuple[str, str]:
        caplog.set_level(logging.INFO, logger="kinto_attachment.plugin")
        Site(**settings).close()
        ((_, level, message),) = [
            each for each in caplog.record_tuples if each[0] == "kinto_attachment.plugin"
        ]
        return logging.getLevelName(level), message

    return logged


@pytest.mark.parametrize(
    "settings, place",
    [
        ({"kinto.attachment.storage": "memory"}, "memory (memory storage)"),
        ({"kinto.attachment.base_path": "/srv/files"}, "/srv/files (local storage)"),
        (
            {"kinto.attachment.base_path": "/srv/files", "kinto.attachment.prefix": "a/"},
            "/srv/files/a/ (local storage)",
        ),
        (S3, "http://127.0.0.1:9/files (s3 storage)"),
        ({"kinto.attachment.aws.bucket_name": "files"}, "s3://files (s3 storage)"),
        ({"kinto.attachment.gcloud.bucket_name": "files"}, "gs://files (gcs storage)"),
        (
            {
                "kinto.attachment.storage": "tests.support.own_storage:OwnStorage",
                "kinto.attachment.storage.place": "a",
            },
            "OwnStorage (tests.support.own_storage:OwnStorage storage)",
        ),
        (
            {**S3, "kinto.attachment.base_path": "/a", "kinto.attachment.storage": "local"},
            "/a (local storage)",
        ),
    ],
)
def test_is_logged(logged, settings, place):
    assert logged(**settings) == ("INFO", f"Files are stored in {place}.")


def test_several_are_a_warning(logged):
    level, message = logged(**S3, **{"kinto.attachment.base_path": "/srv/files"})
    assert level == "WARNING"
    assert message == (
        "Files are stored in http://127.0.0.1:9/files (s3 storage), although the settings name "
        "several storages (aws.bucket_name, base_path). Remove those that you do not use, or set "
        "kinto.attachment.storage = s3."
    )
