"""Settings that declare fields, and settings of single fields."""

import pytest

from kinto_attachment.errors import SettingError
from kinto_attachment.files.ref import FieldRef, RecordRef
from kinto_attachment.settings import read_settings

PRODUCT = RecordRef("shop", "products", "lamp")


def settings(**values):
    named = {f"attachment.{name}": value for name, value in values.items()}
    return read_settings({"attachment.storage": "memory", **named})


def products(**values):
    return {f"resources.shop.products.{name}": value for name, value in values.items()}


def test_a_field_overrides_its_collection():
    declared = {"fields": "attachment cover pictures[]", "max_size": "5MB", "max_files": "7"}
    own = {"pictures.max_size": "1MB", "pictures.private": "true", "pictures.extensions": "png"}
    read = settings(**products(**declared, **own))
    cover, pictures = (read.policy_of(FieldRef(PRODUCT, name)) for name in ("cover", "pictures"))
    assert (cover.max_size, pictures.max_size) == (5_000_000, 1_000_000)
    assert (cover.private, pictures.private) == (False, True)
    assert pictures.extensions == {"png"}
    assert pictures.max_files == 7
    assert [str(each) for each in pictures.fields.values()] == ["attachment", "cover", "pictures[]"]


def test_a_field_of_all_collections():
    read = settings(fields="pictures[]", **products(**{"pictures.max_files": "7"}))
    other = FieldRef(RecordRef("shop", "other", "lamp"), "pictures")
    assert read.policy_of(FieldRef(PRODUCT, "pictures")).max_files == 7
    assert read.policy_of(other).max_files == 100


@pytest.mark.parametrize(
    "given, message",
    [
        ({"fields": ""}, "is empty"),
        ({"fields": "cover cover[]"}, "named twice"),
        ({"fields": "Cover"}, "not the name of a field"),
        ({"fields": "1st"}, "not the name of a field"),
        ({"fields": "cover[][]"}, "not the name of a field"),
        ({"fields": "x" * 64}, "not the name of a field"),
        ({"fields": "uploads"}, "'uploads' is reserved"),
        ({"max_files": "0"}, "from 1 to 1000"),
        (products(**{"cover.max_size": "1"}), "products.cover.max_size: 'cover' is not a field"),
        (
            products(fields="cover", **{"cover.max_files": "2"}),
            r"cover.max_files: has no effect on a field with one file: declare it as cover\[\]",
        ),
        (
            products(fields="cover", **{"cover.fields": "other"}),
            "cover.fields: cannot be set for a field",
        ),
        (
            {"library.bucket": "shop", "library.collection": "products"}
            | products(fields="pictures[]"),
            "products.fields: must be 'attachment'",
        ),
    ],
)
def test_refused_at_the_start(given, message):
    with pytest.raises(SettingError, match=message):
        settings(**given)
