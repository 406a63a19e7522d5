"""A database and a folder of version 8 become this plugin's."""

import os
import subprocess
from contextlib import closing
from itertools import count, islice

import pytest
import transaction

from kinto_attachment.errors import SweepRefused
from kinto_attachment.files.ref import FieldRef, RecordRef
from kinto_attachment.legacy import adoption
from kinto_attachment.maintenance.adopt_storage import adopt_storage
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.rows import paging
from tests.support.deployment import (
    COLLECTIONS,
    COPIES,
    LOCATIONS,
    STALE,
    AdoptedSite,
    Client,
    Deployment,
    attached,
    use,
)
from tests.support.servers.existing import ExistingPlugin, NotInstalled, find_python
from tests.support.servers.wsgi import BIN
from tests.support.site import ALICE
from tests.support.threads import in_thread


@pytest.fixture(scope="session")
def existing_python(request, tmp_path_factory):
    """The python of version 8, which stays in pytest's cache for the next run."""
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("kinto-attachment-8") if cache else tmp_path_factory.mktemp("existing")
    try:
        return find_python(folder)
    except NotInstalled as error:
        pytest.skip(f"version 8 cannot be installed: {error}")


@pytest.fixture(scope="session")
def deployments(existing_python, kinto_settings, tmp_path_factory):
    made = {}

    def deployment(locations: str) -> Deployment:
        if locations not in made:
            folder = tmp_path_factory.mktemp("deployment")
            settings = {
                **kinto_settings("postgresql", fresh=True),
                **LOCATIONS[locations],
                "kinto.attachment.base_path": str(folder / "files"),
                "kinto.includes": "kinto.plugins.default_bucket kinto_attachment "
                "kinto.plugins.flush kinto.plugins.history copier",
            }
            with ExistingPlugin(existing_python, settings, folder) as server:
                use(Client(server.url))
            database = settings["kinto.storage_url"]
            made[locations] = Deployment(settings, database, folder / "files", server.ini)
        return made[locations]

    return deployment


@pytest.fixture(
    params=[
        "absolute",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LOCATIONS if name != "absolute"),
    ]
)
def site(request, deployments, tmp_path):
    return AdoptedSite(deployments(request.param).copy(tmp_path))


@pytest.fixture
def one_site(deployments, tmp_path):
    return AdoptedSite(deployments("absolute").copy(tmp_path))


class TestAdopt:
    def test_everything_is_adopted_and_nothing_touched(self, site):
        before = site.deployment.snapshot()
        assert site.in_transaction(site.legacy.exist)
        found = site.adopt()
        assert {f.record for f in found if f.kind == "adopted"} == {r.uri for r in attached()}
        left = [f for f in found if f.kind == "left behind"]
        assert {f.record for f in left} == STALE
        assert {f.detail for f in left} == {"it has no attachment"}
        assert len(found) == len(attached()) + len(STALE)
        assert not site.in_transaction(site.legacy.exist)
        site.check_complete()
        assert site.deployment.snapshot() == before

    def test_a_second_run_does_nothing(self, site):
        site.adopt()
        links = site.every_link()
        assert site.adopt() == []
        assert [(k, k.modified) for k in site.every_link()] == [(k, k.modified) for k in links]

    def test_what_was_left_behind_is_collected(self, site):
        left = {f.key for f in site.adopt() if f.kind == "left behind"}
        with pytest.raises(SweepRefused, match="kinto-attachment adopt-storage"):
            list(collect(site.server, offline=True))
        list(adopt_storage(site.server, lambda whose: True))
        assert {f.key for f in collect(site.server, offline=True)} == left
        assert site.problems() == set()

    def test_replacing_and_deleting_afterwards_removes_the_old_files(self, site):
        site.adopt()
        one, other = (site.record(RecordRef("b_2", "c1", name)) for name in ("r_5", "r_6"))
        old = [record.data["attachment"]["location"] for record in (one, other)]
        one.upload(b"new")
        other.detach()
        site.http.delete("/buckets/b-3", headers=ALICE)
        stored = {stat.key for stat in site.storage.list()}
        assert not stored & {site.key(location) for location in old}
        # Except the file of r_3 in each collection: no record has it.
        assert len([key for key in stored if key.startswith("b-3/")]) == len(COLLECTIONS)

    def test_a_copied_file_stays_as_long_as_one_record_has_it(self, site):
        site.adopt()
        first, *rest = [site.record(ref) for ref in COPIES]
        content = site.read(first.data["attachment"]["location"])
        first.upload(b"new")
        rest.pop().detach()
        list(adopt_storage(site.server, lambda whose: True))
        list(collect(site.server, offline=True))
        location = rest[0].data["attachment"]["location"]
        assert site.read(location) == content
        rest[0].detach()
        gone = {finding.key for finding in collect(site.server, offline=True)}
        assert site.key(location) in gone

    def test_a_copy_whose_original_is_detached_keeps_its_file(self, one_site):
        """Version 8 did not notice: its row is there, the record has no attachment."""
        original = RecordRef("b1", "c1", "r_4")
        storage = one_site.registry.storage
        with transaction.manager:
            storage.update("record", original.collection_uri, original.record, {"a": 1})
        found = one_site.adopt()
        assert original.uri not in {finding.record for finding in found}
        assert {k.ref.record for k in one_site.every_link() if k.shared} == COPIES - {original}

    @pytest.mark.parametrize(
        "after", [1, 30, *(pytest.param(count, marks=pytest.mark.slow) for count in (0, 9, 47))]
    )
    def test_interrupted_and_run_again(self, one_site, monkeypatch, after):
        monkeypatch.setattr(adoption, "PAGE", 4)
        monkeypatch.setattr(paging, "PAGE", 4)
        before = one_site.deployment.snapshot()
        steps, delete_all = count(), one_site.registry.storage.delete_all

        def fail(*args, **options):
            if next(steps) == 2:
                raise KeyboardInterrupt
            return delete_all(*args, **options)

        findings = one_site.legacy.adopt(transaction_manager=transaction.manager)
        with closing(findings):
            assert len(list(islice(findings, after))) == after
        assert one_site.in_transaction(one_site.legacy.exist)
        with monkeypatch.context() as patch:
            patch.setattr(one_site.registry.storage, "delete_all", fail)
            with pytest.raises(KeyboardInterrupt):
                one_site.adopt()
        assert one_site.in_transaction(one_site.legacy.exist)
        one_site.adopt()
        one_site.check_complete()
        assert one_site.deployment.snapshot() == before

    def test_another_base_url(self, deployments, tmp_path):
        deployment = deployments("absolute").copy(tmp_path)
        deployment.settings["kinto.attachment.base_url"] = "https://new.example/"
        site = AdoptedSite(deployment)
        site.adopt()
        links = site.every_link()
        assert {link.ref.record for link in links} == attached()
        assert {link.ref.record for link in links if link.shared} == COPIES
        assert {kind for kind, _ in site.problems()} == {"orphan object"}

    @pytest.mark.parametrize(
        "scope",
        [
            ("b1", "c_2"),
            ("b1", "c_2", "r_7"),
            pytest.param(("b1",), marks=pytest.mark.slow),
            pytest.param(("b1", "c1", "plain"), marks=pytest.mark.slow),
            pytest.param(("none",), marks=pytest.mark.slow),
        ],
    )
    def test_only_one_bucket_collection_or_record(self, one_site, scope):
        def is_meant(ref):
            return (ref.bucket, ref.collection, ref.record)[: len(scope)] == scope

        one_site.adopt(*scope)
        expected = {ref for ref in attached() if is_meant(ref)}
        assert {link.ref.record for link in one_site.every_link()} == expected
        one_site.adopt()
        one_site.check_complete()

    def test_a_record_whose_file_is_replaced_meanwhile(self, one_site, monkeypatch):
        """The record is linked to its new file, not to the one that was read before."""
        record = one_site.record(RecordRef("b_2", "c1", "r_5"))
        original, left = adoption._Adoption._keys, [lambda: record.upload(b"new")]

        def keys(self, attachments):
            if left:
                in_thread(left.pop())
            return original(self, attachments)

        monkeypatch.setattr(adoption._Adoption, "_keys", keys)
        one_site.adopt()
        attachment = record.data["attachment"]
        ref = RecordRef("b_2", "c1", "r_5")
        links = one_site.in_transaction(lambda: one_site.links.of(FieldRef(ref)))
        assert [link.key for link in links] == [one_site.key(attachment["location"])]
        assert one_site.read(attachment["location"]) == b"new"


class TestMigrate:
    @pytest.fixture
    def migrate(self, one_site):
        deployment = one_site.deployment
        folder = deployment.ini.parent
        text = deployment.ini.read_text().replace("plugins.history copier", "plugins.history")
        deployment.ini.write_text(text.replace("level = WARNING", "level = INFO"))

        def run(*options: str) -> str:
            command = [str(BIN / "kinto"), "migrate", "--ini", str(deployment.ini), *options]
            env = {**os.environ, "PYTHONPATH": str(folder)}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stderr

        return run

    def test_adopts_all_once(self, one_site, migrate):
        before = one_site.deployment.snapshot()
        log = migrate()
        assert f"'adopted': {len(attached())}, 'left behind': {len(STALE)}" in log
        one_site.check_complete()
        assert one_site.deployment.snapshot() == before
        assert "attachment schema is up-to-date" in migrate()

    def test_dry_run_changes_nothing(self, one_site, migrate):
        rows = one_site.deployment.rows
        assert "that would be imported: some" in migrate("--dry-run")
        assert one_site.deployment.rows == rows
        assert one_site.every_link() == []
