"""Uploads that are not finished: parts of them are missing, their hash is not checked, or no record
describes them yet."""

from .direct import DirectUpload, DirectUploads, Part, State
from .intent import Intent
from .leases import Leases
from .pending import Pending, PendingUploads
from .resumable import ResumableUpload, ResumableUploads, Segment
from .unclaimed import Unclaimed, UnclaimedUploads

__all__ = [
    "DirectUpload",
    "DirectUploads",
    "Intent",
    "Leases",
    "Part",
    "Pending",
    "PendingUploads",
    "ResumableUpload",
    "ResumableUploads",
    "Segment",
    "State",
    "Unclaimed",
    "UnclaimedUploads",
]
