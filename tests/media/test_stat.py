"""``POST /media/stat``."""

import json

import pytest

from tests.support.library import MediaLibrary, settings
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

    def test_charsets_are_those_of_forms(self, media):
        for charset, status in (("utf-16", 200), ("Latin1", 200), ("punycode", 400), ("a", 400)):
            codec = charset if status == 200 else "ascii"
            headers = {**ALICE, "Content-Type": f"application/json; charset={charset}"}
            body = json.dumps(["0" * 64]).encode(codec)
            answer = media.http.post("/media/stat", body, headers=headers, status=status)
            if status == 400:
                assert answer.json["details"][0]["name"] == "Content-Type"

    def test_the_library_takes_no_questions(self, make_site):
        """It takes the forms that are sent to ``/media``."""
        library = MediaLibrary(make_site(**settings("site")))
        headers = {**ALICE, "Content-Type": "multipart/form-data; boundary=x"}
        library.http.post("/media/stat", b"[]", headers=headers, status=200)
        library.http.post("/media/stat", b"--x--", headers=headers, status=400)
