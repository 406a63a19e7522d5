"""Servers that have many files: rows are copied by SQL, as so many uploads take hours."""

import os
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from uuid import UUID

import psycopg2

CONTENT = b"the same in each"

# Rows like those of one record, with the id :record and the key :key, for each number. Of the
# existing plugin's rows the ids say nothing.
COPY = """
    INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)
    SELECT CASE WHEN parent_id = '__attachments__' THEN md5(id || number)
                ELSE replace(replace(id, %(key)s, other_key), %(record)s, other_record) END,
           replace(parent_id, %(record)s, other_record),
           resource_name,
           last_modified - number * INTERVAL '1 millisecond',
           replace(replace(data::text, %(key)s, other_key), %(record)s, other_record)::jsonb,
           deleted
      FROM objects, generate_series(1, %(count)s) AS number,
           LATERAL (SELECT md5('record ' || number) AS other_record,
                           md5('key ' || number)::uuid::text AS other_key)
     WHERE id = %(record)s
        OR parent_id LIKE '%%/' || %(record)s
        OR data::text LIKE '%%' || %(record)s || '%%'
"""


def copy_rows(url: str, record: str, uuid: str, count: int) -> None:
    """
    :param record: the id of the record that is copied, with what belongs to it.
    :param uuid: by which its key differs from the others.
    """
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        # The trigger looks for the latest row of the collection, for each.
        cursor.execute("ALTER TABLE objects DISABLE TRIGGER USER")
        cursor.execute(COPY, {"record": record, "key": uuid, "count": count})
        cursor.execute("ALTER TABLE objects ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE objects")
    connection.close()


def copied_keys(key: str, uuid: str, count: int, kind: str = "key") -> Iterator[str]:
    """The keys that the copies have."""
    for number in range(1, count + 1):
        yield key.replace(uuid, str(UUID(md5(f"{kind} {number}".encode()).hexdigest())))


def write_files(paths: Iterator[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, CONTENT)
        os.close(descriptor)
    os.sync()  # or the next one who syncs a file waits for these
