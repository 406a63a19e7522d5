"""Forms (``multipart/form-data``, RFC 7578), parsed in one pass while they are received."""

from .reader import (
    MAX_FIELD_BYTES,
    MAX_OVERHEAD_BYTES,
    FileField,
    Form,
    FormReader,
    Received,
    read_boundary,
)

__all__ = [
    "MAX_FIELD_BYTES",
    "MAX_OVERHEAD_BYTES",
    "FileField",
    "Form",
    "FormReader",
    "Received",
    "read_boundary",
]
