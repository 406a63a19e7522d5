"""Settings of resumable and direct uploads."""

from .parsers import byte_size, integer
from .setting import Setting

LIFETIME = integer(1, 7 * 24 * 3600, "seconds")

_SIZE_ABOVE_0 = byte_size("1 byte")

RESUMABLE = (
    Setting(
        "uploads.ttl",
        LIFETIME,
        "86400",
        "Seconds after which an unfinished upload expires, counted from the last bytes that "
        "arrived, or from the last change of a direct upload.",
    ),
    Setting(
        "uploads.segment_size",
        _SIZE_ABOVE_0,
        "16MiB",
        "Bytes of a resumable upload that are stored at once: a broken connection loses at most "
        "as many.",
    ),
)

DIRECT = (
    Setting(
        "direct.part_size",
        byte_size("1 byte", maximum="5GiB"),
        "64MiB",
        "Bytes that a client sends to the storage at once in a direct upload. A larger file is "
        "sent in parts. S3 takes up to ``5GiB`` at once.",
    ),
    Setting(
        "direct.inline",
        byte_size(),
        "64MiB",
        "Largest direct upload that is hashed while its client waits. Larger ones are hashed in "
        "the background, unless the storage itself proves their hash.",
    ),
    Setting(
        "direct.expires",
        LIFETIME,
        "3600",
        "Seconds for which the URLs of a direct upload are valid. The client can ask for new ones "
        "until the upload expires.",
    ),
)
