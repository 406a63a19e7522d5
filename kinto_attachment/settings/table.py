"""All settings. Those of storages on other machines are in :mod:`.remote`, and those of uploads
without a form in :mod:`.uploads`."""

from ..files.field import MAX_FILES
from .parsers import (
    byte_size,
    integer,
    one_of,
    parse_dir_mode,
    parse_endpoint,
    parse_extensions,
    parse_fields,
    parse_file_mode,
    parse_flag,
    parse_id,
    parse_mimetypes,
    parse_path,
    parse_prefix,
    parse_seconds,
    parse_sizes,
    parse_text,
    parse_url,
)
from .remote import GCS, S3
from .setting import Setting
from .uploads import DIRECT, LIFETIME, RESUMABLE

_COUNT = integer(1)
_PIXELS = integer(1, unit="pixels")
_SIZE = byte_size()
_SIZE_ABOVE_0 = byte_size("1 byte")
# A worker that has less memory than this cannot decode any image.
_MEMORY = byte_size("512MiB")
_PROCESSES = integer(1, 64, "processes")
_QUALITY = integer(1, 100)


_PLACES = (
    Setting(
        "storage",
        parse_text,
        "auto",
        "Where the files are stored: ``local``, ``s3``, ``gcs`` or ``memory``. ``auto`` chooses "
        "``gcs``, ``s3`` or ``local``, the first of them that is configured. For a storage of your "
        "own, give the path of its class, such as ``package.module.MyStorage``, or the name of an "
        "entry point.",
    ),
    Setting("base_path", parse_text, "", "Folder that contains the files (``local``)."),
    Setting(
        "base_url",
        parse_url,
        "",
        "URL that is put before the key of a file to make its ``location``. If empty, locations "
        "are relative.",
    ),
    Setting(
        "extra.base_url",
        parse_url,
        "",
        "URL that the ``attachments`` capability advertises, if it is not ``base_url``.",
    ),
    Setting(
        "prefix",
        parse_prefix,
        "",
        "Path such as ``staging/`` that is put before every key in the storage. Servers with "
        "different databases can share a bucket or folder if each has a prefix of its own.",
    ),
    Setting(
        "file_mode",
        parse_file_mode,
        "",
        "Mode of new files, such as ``0640`` (``local``). If empty, the umask decides.",
    ),
    Setting(
        "dir_mode",
        parse_dir_mode,
        "",
        "Mode of new folders, such as ``0750`` (``local``). If empty, the umask decides.",
    ),
    Setting(
        "spool_dir",
        parse_text,
        "",
        "Folder for files that are received before they can be stored (``s3``, ``gcs``): those of "
        "the media store, and those whose key contains ``{hash}`` or ``{shard}``. If empty, the "
        "system's temporary folder is used.",
    ),
)

_NAMES = (
    Setting(
        "folder",
        parse_text,
        "",
        "Folder of the files below the root. It may contain ``{bucket_id}`` and "
        "``{collection_id}``.",
        per_resource=True,
    ),
    Setting(
        "randomize",
        parse_flag,
        "true",
        "Use a random name (a UUID with the extension of the file) for ``{filename}`` in "
        "``filename_pattern``, instead of the name that the client sent.",
        per_resource=True,
    ),
    Setting(
        "filename_pattern",
        parse_text,
        "{filename}",
        "Name of a stored file. It may contain ``{filename}``, ``{extension}`` (with its dot), "
        "``{datetime}`` (in UTC, as ``20260131235959``), ``{rid}`` or ``{record_id}``, ``{hash}``, "
        "``{shard}`` (the first two digits of the hash), ``{uuid}``, ``{bucket_id}`` and "
        "``{collection_id}``.",
        per_resource=True,
    ),
    Setting(
        "keep_old_files",
        parse_flag,
        "false",
        "Keep the bytes of replaced and deleted attachments.",
        per_resource=True,
    ),
)

_FIELDS = (
    Setting(
        "fields",
        parse_fields,
        "attachment",
        "Fields of a record that have files, separated by spaces. ``cover`` has one file, and "
        "``pictures[]`` is a list of files. Without ``attachment`` among them, there is no "
        "``{record}/attachment``. Objects of the media library always have this one field.",
        per_resource=True,
    ),
    Setting(
        "max_files",
        integer(1, MAX_FILES, "files"),
        "100",
        "The most files in a field that is a list.",
        per_resource=True,
    ),
)

_ACCEPTED = (
    Setting(
        "extensions",
        parse_extensions,
        "default",
        "Accepted extensions: groups and single extensions joined by ``+``, or ``any``.",
        per_resource=True,
    ),
    Setting(
        "mimetypes",
        parse_mimetypes,
        "",
        "Media types by extension, which override what clients say: "
        "``.ftl:application/vnd.fluent;.db:...``",
        per_resource=True,
    ),
    Setting(
        "max_size",
        _SIZE,
        "0",
        "Largest accepted file. 0 means no limit.",
        per_resource=True,
        alias="max_size_bytes",
    ),
    Setting(
        "check_content",
        parse_flag,
        "false",
        "Refuse files whose first bytes contradict their media type.",
        per_resource=True,
    ),
)

_DOWNLOADS = (
    Setting(
        "private",
        parse_flag,
        "false",
        "Keep files as private as their records: ``location`` is the URL of "
        "``GET {record}/attachment`` and not a URL of the storage.",
        per_resource=True,
    ),
    Setting(
        "download",
        one_of("stream", "redirect", "accel"),
        "stream",
        "How ``GET {record}/attachment`` sends the file: ``stream`` sends its bytes, ``redirect`` "
        "redirects to a signed URL (``s3``, ``gcs``), and ``accel`` lets nginx send it, with "
        "``X-Accel-Redirect`` (``local``).",
    ),
    Setting(
        "redirect_expires",
        LIFETIME,
        "300",
        "Seconds for which a signed URL is valid.",
    ),
    Setting(
        "accel_path",
        parse_path,
        "/attachment-files/",
        "Internal location from which nginx serves the files.",
    ),
)

_MEDIA = (
    Setting(
        "media.verifier",
        one_of("thread", "none"),
        "thread",
        "What verifies uploads with ``?verify=false``, and large direct uploads: a ``thread`` in "
        "every server process, or, with ``none``, only the command ``kinto-attachment verify``.",
    ),
)

_LIBRARY = (
    Setting(
        "library.bucket",
        parse_id,
        "",
        "Bucket of the media library. If empty, there is no library.",
    ),
    Setting("library.collection", parse_id, "media", "Collection of the media library."),
    Setting(
        "library.unclaimed_ttl",
        LIFETIME,
        "86400",
        "Seconds after which an upload expires if no client makes an object of it.",
    ),
)

_UNSPLASH = (
    Setting(
        "unsplash.access_key",
        parse_text,
        "",
        "Access key for ``/unsplash/{id}``. If empty, photos cannot be imported.",
    ),
    Setting(
        "unsplash.api_url",
        parse_endpoint,
        "https://api.unsplash.com",
        "URL of the Unsplash API.",
    ),
    Setting("unsplash.max_size", _SIZE_ABOVE_0, "50MiB", "Largest photo to import."),
    Setting(
        "unsplash.timeout",
        parse_seconds,
        "30",
        "Seconds that one import may take in total.",
    ),
)

_IMAGES = (
    Setting(
        "images.sizes",
        parse_sizes,
        "",
        "Sizes that clients may request, such as ``320x0 1920x0 100x100``. If this and "
        "``images.step`` are not set, clients may request any size.",
    ),
    Setting(
        "images.step",
        integer(unit="pixels"),
        "0",
        "Clients may also request every size whose width and height are multiples of this number; "
        "0 adds no sizes.",
    ),
    Setting("images.max_side", _PIXELS, "4096", "Longest side of a resized image."),
    Setting(
        "images.max_variants",
        _COUNT,
        "200",
        "Number of resized copies that are kept of one image. A further copy replaces the oldest.",
    ),
    Setting(
        "images.max_pixels",
        _PIXELS,
        "50000000",
        "Largest image that is resized: its width times its height.",
    ),
    Setting("images.max_bytes", _SIZE_ABOVE_0, "100MiB", "Largest file that is resized."),
    Setting("images.jpeg_quality", _QUALITY, "80", "Quality of JPEG images, from 1 to 100."),
    Setting("images.webp_quality", _QUALITY, "80", "Quality of WebP images, from 1 to 100."),
    Setting("images.avif_quality", _QUALITY, "60", "Quality of AVIF images, from 1 to 100."),
    Setting(
        "images.negotiate",
        parse_flag,
        "false",
        "Send AVIF or WebP to clients that accept it, even without ``?format=``.",
    ),
    Setting(
        "images.cache_seconds",
        integer(unit="seconds"),
        "0",
        "Seconds for which a server process remembers public files of the library. It serves them "
        "several times faster, but continues to do so for this time after they were deleted or "
        "made private.",
    ),
    Setting(
        "images.workers",
        _PROCESSES,
        "1",
        "Number of images that each server process can resize at the same time.",
    ),
    Setting(
        "images.queue",
        integer(unit="requests"),
        "6",
        "Number of requests in each server process that may wait for images to be resized: at most "
        "half of them for one image, and three quarters from one client. Further requests get a "
        "503 at once. Each waiting request holds a thread, so leave enough threads for others.",
    ),
    Setting("images.timeout", parse_seconds, "10", "Seconds that resizing one image may take."),
    Setting("images.memory", _MEMORY, "1.5GiB", "Address space that one worker may use."),
)

_CLIENTS = (
    Setting(
        "client.silence",
        parse_seconds,
        "30",
        "Seconds that a client may send nothing before its request ends with a 408.",
    ),
    Setting(
        "client.min_rate",
        byte_size(unit="bytes per second"),
        "1KiB",
        "Rate at which a client must send its body, on average. A slower request ends with a 408. "
        "0 means no limit.",
    ),
    Setting(
        "client.window",
        parse_seconds,
        "60",
        "Seconds over which ``client.min_rate`` is measured, counting only the time that the "
        "server waits for the client.",
    ),
    Setting(
        "client.queue",
        integer(1, unit="requests"),
        "4",
        "Number of requests in each server process that may wait for a body before the permission "
        "of the client is known. Further ones get a 408. Each waiting request holds a thread.",
    ),
    Setting(
        "client.max_json",
        _SIZE_ABOVE_0,
        "1MiB",
        "Largest JSON body that the routes of this plugin accept.",
    ),
)

TOPICS: dict[str, tuple[Setting, ...]] = {
    "Where the files are": _PLACES,
    "S3": S3,
    "Google Cloud Storage": GCS,
    "Folders and names": _NAMES,
    "Fields": _FIELDS,
    "Accepted files": _ACCEPTED,
    "Private files and downloads": _DOWNLOADS,
    "Resumable uploads": RESUMABLE,
    "Direct uploads": DIRECT,
    "Media store": _MEDIA,
    "Media library": _LIBRARY,
    "Unsplash": _UNSPLASH,
    "Images": _IMAGES,
    "Slow clients": _CLIENTS,
}
"""All settings by topic, in the order in which the documentation lists them."""

SETTINGS: tuple[Setting, ...] = tuple(setting for topic in TOPICS.values() for setting in topic)
