"""Filenames, and the keys that are made of them."""

import os
import re
from hashlib import sha256
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.errors import FilenameRefused, KeyRefused
from kinto_attachment.files.blob import Digest
from kinto_attachment.files.filename import (
    accept_filename,
    content_disposition,
    extension_of,
    safe_filename,
)
from kinto_attachment.files.key import MAX_KEY, KeyTemplate, check_key
from kinto_attachment.files.ref import RecordRef

REF = RecordRef("blog", "articles", "first")


@given(st.text())
def test_accepted_filenames_are_one_printable_line(filename):
    try:
        accepted = accept_filename(filename)
    except FilenameRefused as refused:
        assert refused.reason.startswith("Filename")
        return
    assert 0 < len(accepted) <= 255
    assert accepted not in (".", "..")
    assert not re.search(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029]", accepted)
    accepted.encode("utf-8")


@given(st.text())
def test_safe_filenames_are_ascii_and_short(filename):
    safe = safe_filename(filename)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", safe)
    assert ".." not in safe.rpartition(".")[2]


@given(st.text(), st.sampled_from(["{filename}", "{uuid}{extension}", "{hash}{extension}"]))
def test_keys_are_always_good(filename, pattern):
    keys = KeyTemplate("{bucket_id}", pattern).keys(REF, filename, "ab" * 32)
    for key in (next(keys), next(keys), next(keys)):
        assert check_key(key).startswith("blog/")
        assert key.isascii()
        assert KeyTemplate("{bucket_id}", pattern).makes(key)


@given(st.text())
def test_good_keys_never_leave_the_root(key):
    try:
        check_key(key)
    except KeyRefused:
        return
    assert len(key.encode()) <= MAX_KEY
    path = os.path.normpath(os.path.join("/root", key))
    assert path == f"/root/{key}"


@given(st.text(min_size=1))
def test_dispositions_are_one_ascii_line(filename):
    try:
        filename = accept_filename(filename)
    except FilenameRefused:
        return
    value = content_disposition(filename, inline=False)
    assert value.startswith('attachment; filename="')
    assert value.isascii() and value.isprintable()
    assert value.count('"') == 2


@given(st.text(st.characters()))
def test_dispositions_of_any_name(filename):
    """Older records may have names that would be refused today."""
    assert content_disposition(filename, inline=True).isprintable()


@pytest.mark.parametrize("length", [255, 256, 300])
@pytest.mark.parametrize("letter", ["a", "é", "写"])
def test_dispositions_of_long_names_keep_the_extension(letter, length):
    value = content_disposition(letter * length + ".jpg", inline=True)
    name = unquote(value.partition("filename*=UTF-8''")[2])
    assert '.jpg"' in value
    assert name == letter * 251 + ".jpg"


CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(st.text(st.sampled_from(f"aé写.{CONTROLS}"), max_size=300))
def test_dispositions_turn_no_text_around(filename):
    value = content_disposition(filename, inline=False)
    plain = "".join(char for char in filename if char not in CONTROLS)
    assert value == content_disposition(plain, inline=False)
    assert not set(unquote(value)) & set(CONTROLS)
    assert not value.endswith("''")


@pytest.mark.parametrize("name", ["{}", "{}.", "{}..", ".{}.", " {} .. {}"])
@pytest.mark.parametrize("control", CONTROLS)
def test_controls_hide_no_folder(name, control):
    name = name.format(control, control)
    with pytest.raises(FilenameRefused):
        accept_filename(name)
    assert content_disposition(name, inline=False) == 'attachment; filename="file"'


@given(st.text())
def test_extensions_are_ascii(filename):
    assert re.fullmatch(r"[a-z0-9]{0,16}", extension_of(filename))


@given(st.lists(st.binary(), max_size=20))
def test_digest_is_of_all_chunks(chunks):
    digest = Digest()
    for chunk in chunks:
        digest.update(chunk)
    assert digest.hexdigest() == sha256(b"".join(chunks)).hexdigest()
    assert digest.size == len(b"".join(chunks))
