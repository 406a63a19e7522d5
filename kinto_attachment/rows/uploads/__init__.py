"""Uploads that are not finished: parts of them are missing, their hash is not checked, or no record
describes them yet."""

from .intent import Intent
from .pending import LEASE_SECONDS, Pending, PendingUploads
from .resumable import ResumableUpload, ResumableUploads, Segment
from .unclaimed import Unclaimed, UnclaimedUploads

__all__ = [
    "LEASE_SECONDS",
    "Intent",
    "Pending",
    "PendingUploads",
    "ResumableUpload",
    "ResumableUploads",
    "Segment",
    "Unclaimed",
    "UnclaimedUploads",
]
