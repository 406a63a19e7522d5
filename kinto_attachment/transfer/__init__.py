"""Files to and from a collection of a server, over HTTP, as any client of it could.

Nothing here knows what the server is made of. Bytes are hashed on the way, either way.

::

    with Client("https://kinto.example/v1", "blog", "pictures", "alice:secret") as client:
        for finding in upload(client, ["pictures/"]):
            print(finding)
"""

from .client import Client
from .receiving import download
from .sending import upload

__all__ = ["Client", "download", "upload"]
