"""Files that version 8 kept: it left no row for them."""

from datetime import timedelta
from uuid import uuid4

import pytest
import transaction

from kinto_attachment.errors import AttachmentError
from kinto_attachment.files.ref import RecordRef
from kinto_attachment.finding import Finding
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from tests.support.legacy import KEEP, adopt, old_file, write_row
from tests.support.site import Collection


class TestKeptFiles:
    """Files of ``keep_old_files``, for which version 8 left no rows."""

    def collect_all(self, site):
        """Run ``gc`` as if every upload under way had ended long ago."""
        return list(collect(site.server, timedelta(0), offline=True, force=True))

    def test_kept_files_are_not_collected(self, make_server):
        site = make_server("local", **KEEP)
        ref, key = old_file(site)
        folder = f"{ref.bucket}/fonts"
        kept = sorted(f"{folder}/{uuid4()}.txt" for _ in range(3))
        for name in (*kept, "another/application/s.txt"):
            site.put(name)
        found = adopt(site)
        assert sorted(f.key for f in found if f.kind == "kept") == kept
        assert [f.key for f in found if f.kind == "adopted"] == [key]
        assert len(found) == 4
        assert {f.kind for f in self.collect_all(site)} <= {"unknown object"}
        assert {stat.key for stat in site.storage.list()} == {
            key,
            *kept,
            "another/application/s.txt",
        }
        assert {f.kind for f in fsck(site.server)} <= {"unknown object", "orphan object"}
        assert adopt(site) == []

    def test_a_row_whose_record_is_gone(self, make_server):
        """Its name is that of older settings, so only the row tells of it."""
        site = make_server("local", **KEEP)
        gone = RecordRef("none", "such", "record")
        write_row(site, gone, "older/name.txt")
        site.put("older/name.txt")
        assert adopt(site) == [Finding("kept", "older/name.txt", gone.uri, "the record is gone")]
        releases = site.in_transaction(lambda: list(site.releases.all()))
        assert [(r.rule.value, r.keys) for r in releases] == [("keep", ("older/name.txt",))]

    def test_only_where_old_files_are_kept(self, make_server):
        site = make_server("local", **{"kinto.attachment.resources.b.c.keep_old_files": "true"})
        ref, key = old_file(site)
        write_row(site, RecordRef("x", "y", "z"), "older/name.txt")
        write_row(site, RecordRef("b", "c", "d"), "newer/name.txt")
        kinds = {f.key: f.kind for f in adopt(site)}
        expected = {"older/name.txt": "left behind", "newer/name.txt": "kept"}
        assert kinds == {key: "adopted", **expected}

    def test_the_storage_is_listed_once_and_only_if_needed(self, make_server, monkeypatch):
        site = make_server("local", **KEEP)
        calls, original = [], site.storage.list
        monkeypatch.setattr(
            site.storage, "list", lambda *args: calls.append(args) or original(*args)
        )
        old_file(site)
        adopt(site)
        assert len(calls) == 1
        adopt(site)  # the import is complete: objects that no record has were never kept
        assert len(calls) == 1

    def test_gc_refuses_to_run_after_an_interrupted_import(self, make_server):
        """``gc`` refuses to run until the import is complete."""
        site = make_server("local", **KEEP)
        old_file(site)
        site.put(f"blog/fonts/{uuid4()}.txt")
        job = site.server.plugin.legacy.adopt(transaction_manager=transaction.manager)
        next(job)
        job.close()
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            self.collect_all(site)

    def test_kept_files_are_safe_before_the_import(self, make_server):
        """Kept files are safe until the import, even if no other row is left."""
        site = make_server("local", **KEEP)
        ref, key = old_file(site)
        kept = f"{ref.bucket}/fonts/{uuid4()}.txt"
        site.put(kept)
        Collection(site, ref.bucket, "fonts").record(ref.record).upload(b"new")
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            self.collect_all(site)
        adopt(site)
        self.collect_all(site)
        assert {kept, key} < {stat.key for stat in site.storage.list()}
        assert not site.in_transaction(site.plugin.legacy.exist)
