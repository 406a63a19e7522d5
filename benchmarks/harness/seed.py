"""Giving a server many files. Rows are copied by SQL, because so many uploads would take hours."""

import os
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from uuid import UUID

import psycopg2

CONTENT = b"the same in each"

# Copies the rows of the record %(record)s, whose key contains %(key)s, once for each number. The
# ids of the existing plugin's rows are random.
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
    """Copy a record and the rows that belong to it.

    :param url: the URL of the database.
    :param record: the id of the record.
    :param uuid: the part of its key that is different in each copy.
    :param count: how many copies to make.
    """
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        # For each row, the trigger searches the latest one of the collection.
        cursor.execute("ALTER TABLE objects DISABLE TRIGGER USER")
        cursor.execute(COPY, {"record": record, "key": uuid, "count": count})
        cursor.execute("ALTER TABLE objects ENABLE TRIGGER USER")
        cursor.execute("VACUUM ANALYZE objects")
    connection.close()


def copied_keys(key: str, uuid: str, count: int, kind: str = "key") -> Iterator[str]:
    """Yield the keys of the copies.

    :param key: the key of the original.
    :param uuid: the part of it that is different in each copy.
    :param kind: ``key``; any other text yields keys that no record has.
    """
    for number in range(1, count + 1):
        yield key.replace(uuid, str(UUID(md5(f"{kind} {number}".encode()).hexdigest())))


def write_files(paths: Iterator[Path]) -> None:
    """Write files that contain :data:`CONTENT`."""
    for path in paths:
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, CONTENT)
        os.close(descriptor)
    os.sync()  # otherwise the next program that syncs a file waits for these
