"""The root of all errors of this package."""


class AttachmentError(Exception):
    """Root of all errors of this package."""
