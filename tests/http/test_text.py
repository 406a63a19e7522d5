"""The charsets of text."""

import codecs
import encodings
from encodings.aliases import aliases

import pytest

from kinto_attachment.http.text import CHARSETS, FILENAME_CHARSETS, codec_of


@pytest.mark.parametrize("known", [CHARSETS, FILENAME_CHARSETS])
def test_spellings_are_those_of_python(known):
    names = {codecs.lookup(name).name for name in known}
    for alias in {*aliases, *aliases.values()}:
        for spelling in (alias, alias.upper(), alias.replace("_", "-"), f" {alias} "):
            try:
                expected = codecs.lookup(spelling.strip()).name
            except LookupError:
                continue  # such as a codec of another operating system
            if expected in names:
                assert codecs.lookup(codec_of(spelling, known)).name == expected
            else:
                with pytest.raises(LookupError):
                    codec_of(spelling, known)


@pytest.mark.parametrize("charset", ["", "-", "utf-9", "idna", "x" * 30_000])
def test_other_names_are_not_looked_up(charset):
    known = dict(encodings._cache)
    with pytest.raises(LookupError):
        codec_of(charset)
    assert encodings._cache == known
