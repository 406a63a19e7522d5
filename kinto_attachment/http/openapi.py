"""What the answers look like, for OpenAPI (``/__api__``)."""

import colander
from kinto.core.errors import ErrorSchema


class AttachmentSchema(colander.MappingSchema):
    """The ``attachment`` attribute of a record."""

    filename = colander.SchemaNode(colander.String(), description="As the client named it.")
    hash = colander.SchemaNode(colander.String(), description="SHA-256, lowercase hex.")
    location = colander.SchemaNode(colander.String(), description="Where the file is.")
    mimetype = colander.SchemaNode(colander.String(), description="Media type.")
    size = colander.SchemaNode(colander.Integer(), description="Bytes.")


class AttachedSchema(colander.MappingSchema):
    body = AttachmentSchema()


class HashSchema(colander.MappingSchema):
    body = colander.SchemaNode(colander.String(), description="SHA-256, lowercase hex.")


class StatSchema(colander.MappingSchema):
    """Hashes, as they were asked for."""

    present = colander.SequenceSchema(colander.SchemaNode(colander.String()))
    missing = colander.SequenceSchema(colander.SchemaNode(colander.String()))


class StatAnswerSchema(colander.MappingSchema):
    body = StatSchema()


class FileFactsSchema(colander.MappingSchema):
    """What a ``_media`` object says of its file."""

    id = colander.SchemaNode(colander.String())
    extension = colander.SchemaNode(colander.String(), description="Without its dot.")
    fileName = colander.SchemaNode(colander.String())
    mimeType = colander.SchemaNode(colander.String(), description="By the bytes.")
    size = colander.SchemaNode(colander.Integer(), description="Bytes.")
    type = colander.SchemaNode(colander.String(), description="image or file.")
    source = colander.SchemaNode(colander.String(), description="disk or unsplash.")
    externalId = colander.SchemaNode(colander.String(), description="Id at Unsplash.")
    url = colander.SchemaNode(colander.String(), description="Below the version.")
    height = colander.SchemaNode(colander.Integer(), description="Pixels; 0 of a file.")
    width = colander.SchemaNode(colander.Integer(), description="Pixels; 0 of a file.")


class UploadedSchema(colander.MappingSchema):
    body = FileFactsSchema()


class RefusedSchema(colander.MappingSchema):
    body = ErrorSchema()


class FileSchema(colander.MappingSchema):
    body = colander.SchemaNode(colander.String(), description="Bytes, of the type of the file.")


class NothingSchema(colander.MappingSchema):
    pass


ERRORS = {
    "400": RefusedSchema(description="The request is refused."),
    "401": RefusedSchema(description="Nobody is authenticated."),
    "403": RefusedSchema(description="This user may not."),
    "404": RefusedSchema(description="No such collection, record or attachment."),
    "412": RefusedSchema(description="The record, or file, is another than the header says."),
    "503": RefusedSchema(description="The file storage is unavailable."),
}

DOWNLOAD = {
    "200": FileSchema(description="The file."),
    "206": FileSchema(description="The ranges of it that were asked for."),
    "304": NothingSchema(description="The client has it already."),
    "307": NothingSchema(description="The file is there, for a while."),
    "416": RefusedSchema(description="The file is shorter."),
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
"""What scripts of other origins may see."""
