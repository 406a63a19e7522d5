"""Images: what a file is, what size comes out, what is refused, and who makes it.

Nothing here knows Kinto, HTTP or storages. ``picture`` reads headers, ``geometry`` computes,
``guard`` refuses, ``workers`` has a process of its own resize; only that process runs libvips.
"""

from .geometry import Plan, Size, Trim, plan
from .guard import Limits, check
from .output import Output
from .picture import Picture, read_picture
from .workers import Turn, Workers

__all__ = [
    "Limits",
    "Output",
    "Picture",
    "Plan",
    "Size",
    "Trim",
    "Turn",
    "Workers",
    "check",
    "plan",
    "read_picture",
]
