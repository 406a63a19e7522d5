"""The index of keys on disk."""

from kinto_attachment.rows.key_index import KeyIndex


def test_a_million_keys_need_no_memory():
    import tracemalloc

    known = KeyIndex()
    tracemalloc.start()
    known.add((f"some/folder/{number:036}.jpg", number) for number in range(100_000))
    assert sum(1 for _ in known) == len(known) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
