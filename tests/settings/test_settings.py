"""Settings that are understood, and settings that are refused."""

import pytest

from kinto_attachment.errors import ContentRefused, FilenameRefused, SettingError
from kinto_attachment.files.ref import FieldRef, RecordRef
from kinto_attachment.library.collection import open_library
from kinto_attachment.remote.unsplash import open_unsplash
from kinto_attachment.settings import read_settings
from kinto_attachment.settings.table import SETTINGS

BASE = {"attachment.base_path": "/srv/files"}
REF = RecordRef("blog", "articles", "first")


def settings(**given: str):
    return read_settings({**BASE, **{f"attachment.{key}": value for key, value in given.items()}})


def key(read, filename="photo.JPG", digest="ab12"):
    return next(read.policy("blog", "articles").template.keys(REF, filename, digest))


def test_defaults():
    read = settings()
    policy = read.policy("blog", "articles")
    assert read.storage == "local"
    assert read["base_url"] == ""
    assert read.advertised_url is None
    assert policy.max_size == 0
    assert not policy.keep_old_files
    assert policy.template.unique and not policy.template.shared
    assert key(read).endswith(".jpg") and "/" not in key(read)
    assert {"jpg", "pdf", "txt", "json"} <= policy.extensions


def test_settings_of_other_plugins_are_ignored():
    assert read_settings({**BASE, "attachments": "x", "history.exclude_resources": "y"})


@pytest.mark.parametrize(
    "given, storage",
    [
        ({"base_path": "/srv"}, "local"),
        ({"aws.bucket": "files"}, "s3"),
        ({"aws.bucket_name": "files", "base_path": "/srv"}, "s3"),
        ({"gcloud.bucket_name": "files", "aws.bucket_name": "files"}, "gcs"),
        ({"storage": "memory"}, "memory"),
        ({"storage": "local", "base_path": "/srv", "aws.bucket": "files"}, "local"),
    ],
)
def test_the_storage_is_inferred(given, storage):
    given = {f"attachment.{key}": value for key, value in given.items()}
    assert read_settings(given).storage == storage


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {},
            "kinto.attachment.base_path: no storage is configured: set this, kinto.attachment.aws.",
        ),
        (
            {"attachment.storage": "s3"},
            "kinto.attachment.aws.bucket_name: must be set for s3 storage",
        ),
        (
            {**BASE, "attachment.nope": "1"},
            "kinto.attachment.nope: unknown; the page 'Settings' of the documentation lists all",
        ),
        (
            {**BASE, "attachment.max_sise": "1"},
            "kinto.attachment.max_sise: unknown; did you mean kinto.attachment.max_size?",
        ),
        (
            {**BASE, "attachment.max_size_byte": "1"},
            "max_size_byte: unknown; did you mean kinto.attachment.max_size_bytes?",
        ),
        (
            {**BASE, "attachment.resources.blog.articles.max_sise": "1"},
            "kinto.attachment.resources.blog.articles.max_sise: unknown; did you mean "
            "kinto.attachment.resources.blog.articles.max_size?",
        ),
        (
            {**BASE, "attachment.max_size": "ten"},
            "max_size: 'ten' is not a size, such as 500000, 512KiB, 10MB or 1.5GiB",
        ),
        (
            {**BASE, "attachment.max_size": "-1"},
            "kinto.attachment.max_size: '-1' is not a size, such as 500000, 512KiB, 10MB or 1.5GiB",
        ),
        (
            {**BASE, "attachment.max_size": "²"},
            "kinto.attachment.max_size: '²' is not a size, such as 500000, 512KiB, 10MB or 1.5GiB",
        ),
        (
            {**BASE, "attachment.randomize": "maybe"},
            "kinto.attachment.randomize: 'maybe' is neither",
        ),
        ({**BASE, "attachment.mimetypes": ".a:b"}, "kinto.attachment.mimetypes: '.a:b' is not of"),
        ({**BASE, "attachment.base_url": "a b"}, "kinto.attachment.base_url: 'a b' is not a URL"),
        (
            {**BASE, "attachment.folder": "{user}"},
            "kinto.attachment.folder: unknown placeholder {user}",
        ),
        (
            {
                **BASE,
                "attachment.randomize": "false",
                "attachment.filename_pattern": "{hash:.8}",
            },
            "kinto.attachment.filename_pattern: '{hash:.8}': placeholders take no format",
        ),
        (
            {**BASE, "attachment.folder": "../up"},
            "kinto.attachment.folder: '../up' is not a relative",
        ),
        ({**BASE, "attachment.folder": "{"}, "kinto.attachment.folder: '{': "),
        (
            {**BASE, "attachment.folder": "a//b"},
            "kinto.attachment.folder: 'a//b' is not a relative",
        ),
        (
            {
                **BASE,
                "attachment.randomize": "false",
                "attachment.filename_pattern": "{hash}/../{filename}",
            },
            "kinto.attachment.filename_pattern: '{hash}/../{filename}' is not a relative path",
        ),
        (
            {**BASE, "attachment.max_size": "1", "attachment.max_size_bytes": "2"},
            "kinto.attachment.max_size: has a different value under its older name "
            "kinto.attachment.max_size_bytes: set only one",
        ),
        (
            {**BASE, "attachment.aws.endpoint_url": "s3.example"},
            "kinto.attachment.aws.endpoint_url: 's3.example' is not an http:// or https:// URL",
        ),
        (
            {**BASE, "attachment.aws.port": "x"},
            "kinto.attachment.aws.port: 'x' is not a whole number",
        ),
        (
            {**BASE, "attachment.aws.port": "80"},
            "kinto.attachment.aws.port: has no effect without kinto.attachment.aws.host",
        ),
        (
            {
                **BASE,
                "attachment.aws.host": "a",
                "attachment.aws.endpoint_url": "http://b",
            },
            "kinto.attachment.aws.host: conflicts with kinto.attachment.aws.endpoint_url",
        ),
        ({**BASE, "attachment.library.bucket": "default"}, "library.bucket: 'default' is not the"),
        (
            {**BASE, "attachment.library.bucket": "_a"},
            "library.bucket: '_a' is not the id of a bucket",
        ),
        ({**BASE, "attachment.images.sizes": "320"}, "images.sizes: '320' is not a size of the"),
        ({**BASE, "attachment.images.workers": "0"}, "images.workers: '0' is not a whole number"),
        (
            {**BASE, "attachment.images.workers": "99"},
            "images.workers: '99' is not a whole number",
        ),
        ({**BASE, "attachment.images.queue": "few"}, "images.queue: 'few' is not a whole number"),
        (
            {**BASE, "attachment.images.memory": "1"},
            "images.memory: '1' is not a size of at least 512MiB",
        ),
        (
            {**BASE, "attachment.images.avif_quality": "101"},
            "avif_quality: '101' is not a whole",
        ),
        (
            {**BASE, "attachment.folder": "_variants"},
            "kinto.attachment.folder: is reserved for",
        ),
        (
            {**BASE, "attachment.aws.timeout": "0"},
            "kinto.attachment.aws.timeout: '0' is not a number",
        ),
        (
            {**BASE, "attachment.resources.fen.nec.fonts.old.randomize": "true"},
            "fonts.old.randomize: is not of the form kinto.attachment.resources.{bucket}.{",
        ),
        (
            {**BASE, "attachment.resources.fennec.base_path": "foobar"},
            "resources.fennec.base_path: 'base_path' cannot be set for a bucket or "
            "collection; these can: folder, randomize",
        ),
        (
            {**BASE, "attachment.resources.fennec.fonts.max_size": "x"},
            "kinto.attachment.resources.fennec.fonts.max_size: 'x' is not a size, such as 5",
        ),
        (
            {**BASE, "attachment.resources.fennec.fonts.folder": "{x}"},
            "kinto.attachment.resources.fennec.fonts.folder: unknown placeholder {x}",
        ),
    ],
)
def test_refused(given, message):
    with pytest.raises(SettingError) as error:
        read_settings(given)
    assert message in str(error.value)


SIZES = {
    "0": 0, "": 0, "500000": 500_000, "10 B": 10, "10 bytes": 10, "10MB": 10_000_000,
    "10 MB": 10_000_000, "10mb": 10_000_000, "10Mb": 10_000_000, "512KiB": 524_288,
    "512kib": 524_288, "2kB": 2000, "1GiB": 1 << 30, "1.5GiB": 3 << 29, "1TB": 10**12,
    "1TiB": 1 << 40, 10485760: 10_485_760, 1e9: 10**9,
}  # fmt: skip
"""Kinto reads numbers by itself, ``1e9`` as a float too."""


@pytest.mark.parametrize("text, size", SIZES.items())
def test_sizes_have_units(text, size):
    for name in ("max_size", "max_size_bytes", "resources.blog.max_size"):
        assert settings(**{name: text}).policy("blog", "articles").max_size == size


@pytest.mark.parametrize("name", [each.name for each in SETTINGS if "bytes" in each.parse.unit])
def test_every_number_of_bytes_has_units(name):
    assert settings(**{name: "0.75 GiB"})[name] == 3 << 28


@pytest.mark.parametrize(
    "text",
    ["10M", "10 m", "1.0001kB", "MB", "1,5MB", "1_000", "10  MB", "-1MB", "1PB", "1e3", "٣MB"],
)
def test_sizes_that_are_refused(text):
    with pytest.raises(SettingError) as refused:
        settings(max_size=text)
    reason = f"{text!r} is not a size, such as 500000, 512KiB, 10MB or 1.5GiB"
    assert str(refused.value) == f"kinto.attachment.max_size: {reason}"


WRONG = {
    "storage": "", "base_url": "a b", "extra.base_url": "a b", "prefix": "é", "file_mode": "8",
    "dir_mode": "0007", "randomize": "maybe", "extensions": "pictures", "mimetypes": "a:b",
    "download": "fax", "accel_path": "x", "library.bucket": "_", "images.sizes": "1",
    "aws.port": "0",
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.name)
def test_a_value_that_cannot_be_read_says_what_is_accepted(setting):
    """Each parser is tried: the message quotes the value, and its other half is what it accepts."""
    assert setting.parse.type
    value = WRONG.get(setting.name, "¿")
    try:
        setting.parse(value)
    except ValueError as error:
        quoted, _, rest = str(error).partition(repr(value))
        assert not quoted and len(rest) > 20
    else:
        assert setting.parse.type == "text"


def test_resources_inherit_from_their_bucket():
    read = settings(
        **{
            "folder": "all",
            "max_size": "1",
            "resources.blog.folder": "{bucket_id}",
            "resources.blog.articles.max_size": "3",
            "resources.blog.max_size": "2",
        }
    )
    assert read.policy("other", "articles").max_size == 1
    assert read.policy("blog", "other").max_size == 2
    assert read.policy("blog", "articles").max_size == 3
    assert key(read).startswith("blog/")


def test_every_per_resource_setting_is_accepted():
    for setting in SETTINGS:
        if setting.per_resource:
            value = setting.default or ""
            assert settings(**{f"resources.blog.{setting.name}": value})


@pytest.mark.parametrize(
    "pattern, expected, shared",
    [
        ("{filename}", "photo.JPG", False),
        ("{hash}", "ab12", True),
        ("{hash}{extension}", "ab12.jpg", True),
        ("{record_id}/{filename}", "first/photo.JPG", False),
        ("{collection_id}-{record_id}{extension}", "articles-first.jpg", False),
    ],
)
def test_filename_pattern(pattern, expected, shared):
    read = settings(randomize="false", filename_pattern=pattern)
    assert key(read) == expected
    assert read.policy("blog", "articles").template.shared is shared


def test_further_keys_differ_and_keep_the_extension():
    read = settings(randomize="false", filename_pattern="{record_id}{extension}")
    keys = read.policy("blog", "articles").template.keys(REF, "a.tar.gz", "00")
    first, second, third = next(keys), next(keys), next(keys)
    assert first == "first.gz"
    assert len({first, second, third}) == 3
    assert second.startswith("first-") and second.endswith(".gz")


BROWSERS_AND_PHONES = (
    "jpg jpeg png gif webp avif heic heif svg tif tiff ico mp4 webm mov m4v 3gp mp3 m4a",
    "ogg opus wav aac pdf doc docx odt ods odp xlsx pptx epub txt md vtt csv json geojson",
    "gpx ics vcf xml yaml toml zip gz 7z woff woff2 ttf otf",
)


@pytest.mark.parametrize(
    "value, accepted, refused",
    [
        ("default", ["a.JPG", "b.csv", "a.mp4"], ["a.exe", "a.php", "README", "jpg"]),
        ("images+video", ["a.jpg", "a.mp4"], ["a.exe", "a.txt"]),
        ("mp4 .AVI", ["a.mp4", "a.avi"], ["a.jpg"]),
        ("documents+.ftl", ["a.FTL", "a.pdf"], ["a.jpg"]),
        ("default+dafsa+xpi+parquet", ["a.dafsa", "a.xpi", "a.parquet"], ["a.exe"]),
        ("any", ["a.exe", "README", "a.b c"], []),
    ],
)
def test_extensions(value, accepted, refused):
    policy = settings(extensions=value).policy("blog", "articles")
    for filename in accepted:
        policy.check_extension(filename)
    for filename in refused:
        with pytest.raises(FilenameRefused):
            policy.check_extension(filename)


@pytest.mark.parametrize("extension", " ".join(BROWSERS_AND_PHONES).split())
def test_default_extensions(extension):
    settings().policy("blog", "articles").check_extension(f"a.{extension}")


@pytest.mark.parametrize(
    "value", ["default+videos", "pictures", "images,video", "imgaes", "executable", ".", "a/b"]
)
def test_unknown_groups_of_extensions(value):
    with pytest.raises(SettingError) as refused:
        settings(extensions=value)
    assert "is neither a group (text, documents, images, " in str(refused.value)


def test_settings_of_every_older_version(caplog):
    """As in the ini files of 0.1 to 9.0.1, and of the largest deployment."""
    raw = {
        "attachment.base_url": "",
        "attachment.extra.base_url": "http://localhost:8888/attachments",
        "attachment.base_path": "/tmp/attachments",
        "attachment.folder": "{bucket_id}/{collection_id}",
        "attachment.extensions": "default+video",
        "attachment.mimetypes": ".ftl:application/vnd.fluent;.db:application/vnd.sqlite3",
        "attachment.keep_old_files": "true",
        "attachment.randomize": "false",
        "attachment.filename_pattern": "{datetime}-{rid}-{filename}",
        "attachment.max_size": "10485760",
        "attachment.gzipped": "false",
        "attachment.resources.blog.use_content_encoding": "true",
        "attachment.resources.blog.keep_old_files": "false",
        "attachment.resources.blog.articles.randomize": "true",
        "attachment.resources.blog.articles.max_size": "0",
        "attachment.aws.access_key": "key",
        "attachment.aws.secret_key": "secret",
        "attachment.aws.acl": "public-read",
    }
    read = read_settings(raw)
    assert read.policy("blog", "other").keep_old_files is False
    assert read.policy("blog", "articles").template.unique
    assert read.advertised_url == "http://localhost:8888/attachments/"
    assert caplog.messages == [
        f"kinto.attachment.{name} has no effect: files are stored as they were sent"
        for name in ("gzipped", "resources.blog.use_content_encoding")
    ]


def test_configured_mimetypes_win():
    read = settings(mimetypes=".ftl:application/vnd.fluent; db:application/vnd.sqlite3")
    policy = read.policy("blog", "articles")
    assert policy.mimetype("a.ftl", None, b"a = b") == "application/vnd.fluent"
    assert policy.mimetype("a.FTL", "text/plain", b"") == "application/vnd.fluent"
    assert policy.mimetype("a.db", "application/octet-stream", b"") == "application/vnd.sqlite3"
    assert policy.mimetype("a.txt", None, b"") == "text/plain"


def test_the_type_of_last_resort_is_sniffed():
    policy = settings().policy("blog", "articles")
    assert policy.mimetype("a", None, b"GIF89a") == "image/gif"
    for text in (b"text", b"<html>", b""):
        assert policy.mimetype("a", None, text) == "application/octet-stream"
    assert policy.mimetype("a", "application/octet-stream", b"GIF89a") == "application/octet-stream"


def test_a_library_needs_a_collection():
    settings = {"attachment.library.bucket": "site", "attachment.library.collection": ""}
    with pytest.raises(SettingError, match="library.collection: a library needs a collection"):
        open_library(read_settings({**BASE, **settings}))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"attachment.unsplash.access_key": "with space"}, "unsplash.access_key"),
        (
            {"attachment.unsplash.access_key": "k", "attachment.unsplash.api_url": "http://a:b@c"},
            "unsplash.api_url",
        ),
    ],
)
def test_unsplash_is_refused_at_start(given, name):
    with pytest.raises(SettingError, match=name):
        open_unsplash(read_settings({**BASE, **given}))


def test_check_content_refuses_contradictions():
    read = settings(**{"resources.blog.check_content": "true"})
    with pytest.raises(ContentRefused) as refused:
        read.policy("blog", "articles").mimetype("a.png", None, b"GIF89a")
    assert refused.value.reason == (
        "The type of the file is image/png, but its bytes look like image/gif."
    )
    assert read.policy("other", "articles").mimetype("a.png", None, b"GIF89a") == "image/png"


@pytest.mark.parametrize("storage, download", [("local", "redirect"), ("s3", "accel")])
def test_downloads_that_the_storage_does_not_support(storage, download):
    bucket = {"aws.bucket_name": "files"} if storage == "s3" else {}
    with pytest.raises(SettingError, match="attachment.download: .* is not possible"):
        settings(storage=storage, download=download, **bucket)


@pytest.mark.parametrize("seconds", ["0", "0.5", "-1", "x", "999999999"])
def test_signed_urls_live_for_whole_seconds(seconds):
    with pytest.raises(SettingError, match="attachment.redirect_expires"):
        settings(redirect_expires=seconds)


def test_private_files_by_hash_have_keys_of_their_own():
    names = {"randomize": "false", "filename_pattern": "{hash}"}
    read = settings(**names, **{"resources.secret.private": "true"})
    keys = [
        next(read.policy(bucket, "c").template.keys(REF, "a", "ab"))
        for bucket in ("blog", "secret")
    ]
    assert keys == ["ab", "private/ab"]


@pytest.mark.parametrize(
    "path", ["files/", "", "/", "//", "/a b/", "/a\nb/", "/a?b", "/a/../b/", "/a//b"]
)
def test_accel_path_is_absolute(path):
    with pytest.raises(SettingError, match="attachment.accel_path"):
        settings(accel_path=path)


@pytest.mark.parametrize("randomize", ["true", "false"])
def test_private_files_have_a_folder_of_their_own(randomize):
    """A web server that serves the public files can leave it out."""
    names = {"folder": "{bucket_id}", "randomize": randomize}
    read = settings(**names, **{"resources.secret.private": "true"})
    place = FieldRef(RecordRef("secret", "c", "r"))
    key = next(read.policy_of(place).template.keys(place, "a.txt", "ab" * 32))
    assert key.startswith("private/secret/")
    older = key.removeprefix("private/")
    assert read.makes(key) and read.makes(older)  # where such files were before
    assert read.makes_once(older) is (randomize == "true")


def test_private_files_need_no_base_url():
    assert settings(private="true").advertised_url == ""
    assert settings(**{"resources.blog.private": "true"}).advertised_url == ""
    assert settings(private="true", base_url="https://a.example").advertised_url is not None


def test_base_url_gets_its_slash():
    assert settings(base_url="http://cdn.com")["base_url"] == "http://cdn.com/"
    assert settings(**{"extra.base_url": "http://x"}).advertised_url == "http://x/"


def test_settings_are_frozen():
    with pytest.raises(TypeError):
        settings()["base_url"] = "x"
