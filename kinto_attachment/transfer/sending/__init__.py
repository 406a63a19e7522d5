"""How the bytes of a file get to the server: small files in a form, large ones in a resumable
upload, if the server takes those.

A resumable upload (tus 1.0, https://tus.io) survives what a form does not:

* **The connection breaks.** The next attempt asks the server how much has arrived, and sends the
  rest. Attempts that got further do not count.
* **The client is killed, or the user stops it.** The id of the upload is in a small file of the
  user, see :mod:`.journal`. The next run of the same command goes on from there, as long as the
  server keeps what has arrived.
* **The file changes in between.** The file is hashed before its first byte is sent, and the journal
  finds an upload by that hash among other things. So the bytes of two versions are never mixed.
"""
