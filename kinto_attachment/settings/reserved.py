"""The keys that the plugin makes for itself. They cannot collide with the keys of records, because
those never begin with a reserved segment."""

from ..files.key import KeyTemplate

PRIVATE = "private/"
"""The folder of what may be read through Kinto only. A web server that serves the public files of a
folder can leave this one out."""

PUBLIC_MEDIA = KeyTemplate("_media", "{shard}/{hash}", is_own=True)
PRIVATE_MEDIA = KeyTemplate("private/_media", "{shard}/{hash}", is_own=True)
"""The keys of the media store."""

PENDING_MEDIA = KeyTemplate("private/_media-pending", "{uuid}", is_own=True)
"""The keys of its uploads whose hash is not checked yet."""

STAGED = KeyTemplate("private/_uploads", "{uuid}", is_own=True)
"""The keys of what has arrived of unfinished uploads."""

VARIANTS = KeyTemplate("private/_variants", "{shard}/{hash}-{uuid}", is_own=True)
"""The keys of resized copies. Their names begin with the hash of their image. It is no folder,
because to create one and sync it costs about as much as to store the copy."""

OLDER_VARIANTS = KeyTemplate("private/_variants", "{shard}/{hash}/{uuid}", is_own=True)
"""The keys that they had before."""
