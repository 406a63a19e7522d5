"""Where downloads are stored."""

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kinto_attachment.transfer.paths import MAX_NAME, PART, PathAllocator


class TestPathAllocator:
    texts = st.text(max_size=300) | st.text("./\\a:\0\n", max_size=30)
    anything = texts | st.none() | st.integers() | st.lists(st.text())

    @given(st.lists(st.tuples(anything, texts), max_size=30), st.booleans(), st.booleans())
    @example([("../a", "a")] * 3, False, False)
    @example([("a" * 300, "b/" * 300)] * 3, False, True)
    @example([("x", "x"), ("x.part", ""), ("x-id1.part", "")], False, False)
    @example([("a", ""), ("a/b", ""), ("a/b/c", ""), ("a/b", ""), ("a-id1", "")], False, False)
    @example([("a.part/b", ""), ("a", ""), ("a" * 251, ""), ("a" * 251 + "/b", "")], False, False)
    @example([("a" * 246 + "-id1", ""), ("a" * 251, ""), ("a" * 251, "")], False, False)
    @example([("CON", "nul.txt"), ("a:b", "a."), ("é", "e\u0301")], True, True)
    def test_any_names_are_given_distinct_safe_paths(self, wanted, windows, fold):
        paths = PathAllocator(windows, fold)
        given_paths = [paths.give(f"id{number}", *names) for number, names in enumerate(wanted)]
        paths.close()
        assert len(set(given_paths)) == len(given_paths)
        folders = {str(parent) for path in given_paths for parent in PurePosixPath(path).parents}
        assert folders.isdisjoint({*given_paths, *(path + PART for path in given_paths)})
        for path in given_paths:
            names = path.split("/")
            assert not set(names) & {"", ".", ".."}
            assert not PurePosixPath(path).is_absolute()
            assert all(len(os.fsencode(name)) <= 255 for name in names)
            assert len(os.fsencode(names[-1])) <= MAX_NAME
            assert "\0" not in path and "\\" not in path and "\n" not in path
            assert path + PART not in given_paths
            if windows:
                assert not set(path) & set('<>:"|?*')

    @given(st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=80))
    def test_the_paths_can_be_created(self, tmp_path_factory, name):
        folder = tmp_path_factory.mktemp("paths")
        paths = PathAllocator()
        for number in range(2):
            path = folder / paths.give(f"id{number}", name)
            assert path.parent == folder
            path.with_name(path.name + PART).write_bytes(b"")
            os.rename(path.with_name(path.name + PART), path)
        paths.close()
        assert len(os.listdir(folder)) == 2

    def test_good_names_are_kept(self):
        paths = PathAllocator(windows=False)
        for name in ("a/b c/写真 été.tar.gz", ".profile", "-rf", "a:b?", "x" * MAX_NAME):
            assert paths.give("id", name) == name
        paths.close()

    @pytest.mark.parametrize("record", ["", "..", "a/b", "../x", "a" * 300, "é"])
    def test_invalid_record_ids_are_refused(self, record):
        paths = PathAllocator()
        with pytest.raises(ValueError):
            paths.give(record, None)
        paths.close()
