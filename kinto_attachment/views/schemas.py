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
