"""``docs/http-api.rst`` and ``docs/monitoring.rst`` say what the code does."""

import re
from pathlib import Path

import yaml

from kinto_attachment.http.openapi.components import RESPONSES
from kinto_attachment.metrics import METRICS
from kinto_attachment.storage.gcs import GoogleCloudStorage
from kinto_attachment.storage.local import LocalFileStorage
from kinto_attachment.storage.s3 import S3FileStorage
from tests.http.test_openapi import METHODS, UNSPLASH, openapi

DOCS = Path(__file__).parents[2] / "docs"
API, MONITORING = ((DOCS / f"{name}.rst").read_text() for name in ("http-api", "monitoring"))


def rows(page: str, header: str) -> list[list[str]]:
    """The rows of the table with this heading of its first column, as plain text."""
    table = page.partition(f"   * - {header}\n")[2]
    table = re.split(r"\n\n(?!     |   \*)", table)[0]
    found = []
    for row in table.split("\n   * - ")[1:]:
        cells = re.split(r"\n     -", row)
        found.append([" ".join(cell.replace("``", "").split()) for cell in cells])
    return found


class TestAPI:
    def test_lists_every_route(self, make_site):
        def plain(path):
            record = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}"
            return path.replace(record, "{record}")

        routes = {
            plain(path): ", ".join(
                method.upper() for method in METHODS if method in item and method != "head"
            )
            for path, item in openapi(make_site(**UNSPLASH))["paths"].items()
        }
        assert {path: methods for path, methods, _ in rows(API, "Path")} == routes

    def test_lists_every_status(self, make_site):
        statuses = {
            status
            for item in openapi(make_site(**UNSPLASH))["paths"].values()
            for method in METHODS
            for status in item.get(method, {}).get("responses", ())
        }
        assert [status for status, _ in rows(API, "Status")] == sorted(statuses)
        assert len([status for status in statuses if status >= "4"]) == len(RESPONSES)


class TestMonitoring:
    SUFFIXES = {"counter": "_total", "summary": "_sum", "histogram": "_bucket"}

    def test_lists_every_metric(self):
        expected = [
            [
                f"kinto_{metric.name.replace('.', '_')}{self.SUFFIXES[metric.kind]}",
                ", ".join(metric.labels),
                metric.meaning,
            ]
            for metric in METRICS
        ]
        assert rows(MONITORING, "Name") == expected

    def test_rules_name_metrics_and_labels_that_exist(self):
        block = MONITORING.partition(".. code-block:: yaml\n")[2]
        block = re.split(r"\n(?=\S)", block)[0]
        (group,) = yaml.safe_load(block)["groups"]
        assert len(group["rules"]) == 3
        known = {
            f"kinto_{metric.name.replace('.', '_')}{self.SUFFIXES[metric.kind]}": metric
            for metric in METRICS
        }
        for rule in group["rules"]:
            assert rule["annotations"]["summary"]
            names = re.findall(r"kinto_\w+", rule["expr"])
            assert names
            for name in names:
                assert name in known, name
            for name, labels in re.findall(r"(kinto_\w+)\{([^}]*)\}", rule["expr"]):
                for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                    assert value in known[name].labels[label]

    def test_names_the_timers_of_storages(self):
        """Kinto names them after the class."""
        for storage in (LocalFileStorage, S3FileStorage, GoogleCloudStorage):
            assert f"kinto_backend_{storage.__name__.lower()}_seconds_bucket" in MONITORING

    def test_other_names_exist(self):
        known = {f"kinto_{metric.name.replace('.', '_')}" for metric in METRICS}
        for name in re.findall(r"kinto_attachments_\w+", MONITORING):
            assert re.sub("_(total|sum|count|bucket)$", "", name) in known, name
