"""Files below a folder."""

import errno
import fcntl
import os
import stat
from datetime import datetime, timedelta, timezone
from threading import Thread

import pytest

from kinto_attachment.errors import BlobExists, BlobNotFound, KeyRefused, StorageUnavailable
from kinto_attachment.files.blob import Label, Source
from kinto_attachment.storage import spool
from kinto_attachment.storage.local import LocalFileStorage
from kinto_attachment.storage.testing import StorageTest


class TestLocal(StorageTest):
    @pytest.fixture
    def storage(self, tmp_path):
        return LocalFileStorage(str(tmp_path / "root"), "https://cdn.example/files/")

    def test_age_counts_from_the_publication(self, storage):
        with storage.spool() as file:
            file.write(b"content")
            file.flush()
            os.utime(file.fileno(), (0, 0))  # the last byte was received long ago
            storage.put("part", Source(file, "a", "text/plain", 7, "00"))
        assert_new(storage.stat("part"))
        for parts in (["part"], ["part", "part"]):
            os.utime(storage.path("part"), (0, 0))
            key = f"whole-{len(parts)}"
            storage.compose(parts, key, Label("a", "text/plain"))
            assert_new(storage.stat(key))


def assert_new(found):
    assert datetime.now(timezone.utc) - found.modified < timedelta(minutes=1)


class TestWithoutUnnamedFiles(TestLocal):
    """As on macOS, or NFS."""

    @pytest.fixture
    def storage(self, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "O_TMPFILE")
        return LocalFileStorage(str(tmp_path / "root"), "https://cdn.example/files/")


class TestWithoutLinks(TestLocal):
    """As on exFAT."""

    @pytest.fixture
    def storage(self, tmp_path, monkeypatch):
        def link(*args, **kwargs):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", link)
        return LocalFileStorage(str(tmp_path / "root"), "https://cdn.example/files/")


class TestOnANetwork(TestLocal):
    """As on CIFS: no files without a name, no links, no locks, and folders cannot be synced."""

    @pytest.fixture
    def storage(self, tmp_path, monkeypatch):
        refuse_everything(monkeypatch)
        yield LocalFileStorage(str(tmp_path / "root"), "https://cdn.example/files/")
        for _, _, names in os.walk(tmp_path):
            assert not [name for name in names if name.startswith(".")]


def refuse_everything(monkeypatch) -> None:
    fsync = os.fsync

    def refuse(*args, **kwargs):
        raise OSError(errno.EOPNOTSUPP, "not here")

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(os, "fsync", sync)


@pytest.fixture
def storage(tmp_path):
    return LocalFileStorage(str(tmp_path / "root"))


def test_a_named_spool_is_not_copied(storage, tmp_path, monkeypatch):
    refuse_everything(monkeypatch)
    with storage.spool() as file:
        file.write(b"content")
        source = Source(file, "a", "text/plain", 7, "00")
        storage.put("a", source)
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "root/a").stat().st_ino
        with pytest.raises(BlobExists):
            storage.put("a", source)
        storage.put("b", source)  # as for a request that is repeated
    assert sorted(os.listdir(tmp_path / "root")) == ["a", "b"]
    assert (tmp_path / "root/b").read_bytes() == b"content"


def test_folders_that_cannot_be_synced_are_told_of_once(storage, monkeypatch, caplog):
    refuse_everything(monkeypatch)
    for key in ("a/b", "a/c", "d"):
        put(storage, key)
    assert len([text for text in caplog.messages if "cannot sync folders" in text]) == 1


def test_a_move_that_fails_leaves_nothing(storage, tmp_path, monkeypatch):
    refuse_everything(monkeypatch)

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        put(storage, "a")
    assert os.listdir(tmp_path / "root") == []


def test_a_claim_of_a_dead_process_is_taken_over(storage, tmp_path, monkeypatch):
    """Whatever the clock of the file server says."""
    refuse_everything(monkeypatch)
    monkeypatch.setattr(spool, "CLAIM_SECONDS", 0.1)
    (tmp_path / "root").mkdir()
    open_file, created = os.open, []

    def note(path, flags, *args):
        descriptor = open_file(path, flags, *args)
        if flags & os.O_EXCL:
            created.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", note)
    put(storage, "a")
    claim = created[-1]  # after the spool
    for clock in (0, 4_000_000_000):
        storage.delete(["a"])
        with open(claim, "wb"):
            os.utime(claim, (clock, clock))
        put(storage, "a")
        assert not os.path.exists(claim)
        assert (tmp_path / "root/a").read_bytes() == b"content"


def test_a_claim_that_is_held_is_respected(storage, tmp_path, monkeypatch):
    """Also if the clock of the file server is far behind."""
    refuse_everything(monkeypatch)
    (tmp_path / "root").mkdir()
    root, path = str(tmp_path / "root").encode(), str(tmp_path / "root/a").encode()
    order = []

    def claim_too():
        with spool.claimed(root, path):
            order.append("second")

    with spool.claimed(root, path):
        for name in os.listdir(root):
            os.utime(os.path.join(root, name), (0, 0))
        waiting = Thread(target=claim_too)
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert os.listdir(root) == []


def test_uploads_on_a_network(make_site, monkeypatch):
    refuse_everything(monkeypatch)
    site = make_site("memory", "local", **{"kinto.attachment.randomize": "false"})
    record = site.collection().record()
    for content in (b"first", b"second"):
        record.upload(content)
        record.check(content)
    record.detach()
    assert record.collection.keys == []


def put(storage, key, content=b"content"):
    with storage.spool() as file:
        file.write(content)
        storage.put(key, Source(file, "a", "text/plain", len(content), "00"))


def test_files_are_where_their_keys_say(storage, tmp_path):
    put(storage, "a/b.txt")
    assert (tmp_path / "root/a/b.txt").read_bytes() == b"content"
    assert storage.path("a/b.txt") == str(tmp_path / "root/a/b.txt")


def test_the_umask_is_respected(storage, tmp_path):
    before = os.umask(0o027)
    try:
        put(storage, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "root/a").stat().st_mode) == 0o640


def test_a_spool_that_is_not_put_leaves_nothing(storage, tmp_path, monkeypatch):
    for named in (False, True):
        if named:
            monkeypatch.delattr(os, "O_TMPFILE")
        with storage.spool() as file:
            file.write(b"content")
            assert list(storage.list()) == []
        assert os.listdir(tmp_path / "root") == []


def test_a_spool_is_not_copied(storage, tmp_path):
    with storage.spool() as file:
        file.write(b"content")
        storage.put("a", Source(file, "a", "text/plain", 7, "00"))
        assert os.fstat(file.fileno()).st_ino == (tmp_path / "root/a").stat().st_ino


def test_file_and_folder_are_synced_before_put_returns(storage, monkeypatch):
    synced, linked = [], []
    fsync, link = os.fsync, os.link

    def record_fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def record_link(*args, **kwargs):
        linked.append(len(synced))
        link(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "link", record_link)
    put(storage, "a/b")
    assert linked and any("deleted" in path or "#" in path for path in synced[: linked[0]])
    assert synced[-1].endswith("/root/a")
    assert any(path.endswith("/root") for path in synced)  # where "a" is new


def test_full_disk(storage, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageUnavailable, match="No space left"):
        put(storage, "a")
    monkeypatch.undo()
    with pytest.raises(BlobNotFound):
        storage.stat("a")


def test_root_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    storage = LocalFileStorage(str(tmp_path / "file/root"))
    with pytest.raises((StorageUnavailable, KeyRefused)):
        storage.spool()


def test_a_folder_is_no_blob(storage):
    put(storage, "a/b")
    for call in (storage.stat, storage.open):
        with pytest.raises(BlobNotFound):
            call("a")
    storage.delete(["a"])
    assert [found.key for found in storage.list()] == ["a/b"]


def test_a_blob_is_no_folder(storage):
    put(storage, "a")
    with pytest.raises(KeyRefused):
        put(storage, "a/b")
    with pytest.raises(BlobNotFound):
        storage.stat("a/b")
    storage.delete(["a/b"])


def test_a_segment_that_no_file_can_have(storage):
    with pytest.raises(KeyRefused):
        put(storage, "x" * 256)


def test_a_file_that_gets_shorter_while_it_is_read(storage, tmp_path):
    put(storage, "a", bytes(1000))
    chunks = storage.open("a")
    os.truncate(tmp_path / "root/a", 0)
    with pytest.raises(StorageUnavailable, match="shorter"):
        list(chunks)


def test_many_threads_with_one_name(storage):
    from concurrent.futures import ThreadPoolExecutor

    from kinto_attachment.errors import BlobExists
    from kinto_attachment.files.key import KeyTemplate
    from kinto_attachment.files.ref import RecordRef

    template = KeyTemplate("", "{filename}")

    def save(index):
        for key in template.keys(RecordRef("b", "c", "r"), "same.txt", "00"):
            try:
                put(storage, key, b"%d" % index)
            except BlobExists:
                continue
            return key

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(save, range(200)))
    assert len(set(keys)) == 200
    for index, key in enumerate(keys):
        assert b"".join(storage.open(key)) == b"%d" % index


def test_symbolic_links_to_folders(tmp_path):
    """A symbolic link to another disk is followed; one that leads back up is not."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "blog").symlink_to(elsewhere)
    (root / "again").symlink_to(root)
    storage = LocalFileStorage(str(root))
    with storage.spool() as file:
        file.write(b"x")
        storage.put("blog/a.txt", Source(file, "a.txt", "text/plain", 1, "00"))
    assert [stat.key for stat in storage.list()] == ["blog/a.txt"]


def test_compose_of_one_part_is_a_hard_link(tmp_path):
    storage = LocalFileStorage(str(tmp_path))
    (tmp_path / "part").write_bytes(b"x")
    storage.compose(["part"], "folder/whole", Label("whole", "text/plain"))
    assert (tmp_path / "part").stat().st_ino == (tmp_path / "folder" / "whole").stat().st_ino
    with pytest.raises(BlobExists):
        storage.compose(["part"], "folder/whole", Label("whole", "text/plain"))


def test_a_link_to_itself_is_not_listed(tmp_path):
    storage = LocalFileStorage(str(tmp_path))
    StorageTest().put(storage, "a", b"content")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert [stat.key for stat in storage.list()] == ["a"]
