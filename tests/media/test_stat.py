"""``POST /media/stat``."""

import json

import pytest

from tests.support.media import random_content
from tests.support.site import ALICE


class TestStat:
    def test_present_and_missing_hashes(self, media):
        (one, here), (_, gone) = random_content(), random_content()
        media.post(one)
        answer = media.stat([gone, here.upper(), here])
        assert answer.json == {"present": [here], "missing": [gone]}
        assert media.stat({"hashes": [here]}).json["present"] == [here]
        assert media.stat([]).json == {"present": [], "missing": []}

    def test_a_thousand_hashes_at_most(self, media):
        content, digest = random_content()
        media.post(content)
        others = [random_content(1)[1][:-4] + f"{index:04x}" for index in range(999)]
        answer = media.stat([*others, digest])
        assert answer.json["present"] == [digest]
        assert len(answer.json["missing"]) == 999
        media.stat([digest] * 1001, status=400)

    @pytest.mark.parametrize(
        "question",
        [b"[" * 100_000, "abc", b"", {"a": 1}, [1], ["abc"], [None], {"hashes": "a" * 64}],
    )
    def test_malformed_questions_are_refused(self, media, question):
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        media.http.post("/media/stat", body, headers=ALICE, status=400)

    def test_a_body_over_the_limit_is_refused(self, media):
        media.http.post("/media/stat", b"[" + b" " * 200_000 + b"]", headers=ALICE, status=413)
