"""Schemas of the responses, for the OpenAPI document that Kinto serves at ``/__api__``."""

import colander
from kinto.core.errors import ErrorSchema


class AttachmentSchema(colander.MappingSchema):
    """The ``attachment`` attribute of a record."""

    filename = colander.SchemaNode(colander.String(), description="As the client named the file.")
    hash = colander.SchemaNode(colander.String(), description="SHA-256 in lowercase hex.")
    location = colander.SchemaNode(colander.String(), description="URL of the file.")
    mimetype = colander.SchemaNode(colander.String(), description="Media type.")
    size = colander.SchemaNode(colander.Integer(), description="Size in bytes.")


class AttachedSchema(colander.MappingSchema):
    """The response to an upload to a record."""

    body = AttachmentSchema()


class HashSchema(colander.MappingSchema):
    """The response to an upload to the media store."""

    body = colander.SchemaNode(colander.String(), description="SHA-256 in lowercase hex.")


class StatSchema(colander.MappingSchema):
    """The hashes that a request listed: those that the media store has, and the others."""

    present = colander.SequenceSchema(colander.SchemaNode(colander.String()))
    missing = colander.SequenceSchema(colander.SchemaNode(colander.String()))


class StatAnswerSchema(colander.MappingSchema):
    """The response to a list of hashes."""

    body = StatSchema()


class FileFactsSchema(colander.MappingSchema):
    """What a ``_media`` object states about its file."""

    id = colander.SchemaNode(colander.String())
    extension = colander.SchemaNode(colander.String(), description="Without the dot.")
    fileName = colander.SchemaNode(colander.String())
    mimeType = colander.SchemaNode(colander.String(), description="Judged by the bytes.")
    size = colander.SchemaNode(colander.Integer(), description="Size in bytes.")
    type = colander.SchemaNode(colander.String(), description="'image' or 'file'.")
    source = colander.SchemaNode(colander.String(), description="'disk' or 'unsplash'.")
    externalId = colander.SchemaNode(colander.String(), description="Id of the photo at Unsplash.")
    url = colander.SchemaNode(colander.String(), description="Path below the API version.")
    height = colander.SchemaNode(colander.Integer(), description="Pixels; 0 if not an image.")
    width = colander.SchemaNode(colander.Integer(), description="Pixels; 0 if not an image.")


class UploadedSchema(colander.MappingSchema):
    """The response to an upload to the media library."""

    body = FileFactsSchema()


class RefusedSchema(colander.MappingSchema):
    """The response to a request that failed."""

    body = ErrorSchema()


class FileSchema(colander.MappingSchema):
    """The response to a download."""

    body = colander.SchemaNode(colander.String(), description="The bytes of the file.")


class NothingSchema(colander.MappingSchema):
    """A response without a body."""


ERRORS = {
    "400": RefusedSchema(description="The request is invalid."),
    "401": RefusedSchema(description="Authentication is required."),
    "403": RefusedSchema(description="The user does not have the permission."),
    "404": RefusedSchema(description="No such collection, record or attachment."),
    "412": RefusedSchema(description="The record or file does not meet the precondition."),
    "503": RefusedSchema(description="The file storage is unavailable."),
}

DOWNLOAD = {
    "200": FileSchema(description="The file."),
    "206": FileSchema(description="The requested ranges of the file."),
    "304": NothingSchema(description="The client already has the file."),
    "307": NothingSchema(description="The file is at this URL for a limited time."),
    "416": RefusedSchema(description="The requested range is beyond the end of the file."),
    **ERRORS,
}

EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Repr-Digest",
)
"""Response headers that scripts of other origins may read."""
