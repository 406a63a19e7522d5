"""Direct uploads: the client sends the bytes of a file to the storage, not to this server."""
