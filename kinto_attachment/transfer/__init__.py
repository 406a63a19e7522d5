"""Copying files between a folder and a collection: a client of the server, over HTTP.

Both directions can be interrupted at any time and run again; a new run skips what is done. Five
protocols make that safe:

* **Upload.** The id of a record is computed from the name of its file, so that every run uses the
  same record. Each file is sent with ``If-Match`` or ``If-None-Match``: a record that another
  client has changed in the meantime is not overwritten. After an attempt whose response was lost,
  the uploader reads the record before it sends the file again.
* **Upload of large files.** The server keeps what has arrived. The next attempt, or the next run,
  sends the rest, see :mod:`.sending`.
* **Download.** Bytes are written to ``NAME.part``, which is locked during the run. The next
  attempt, or the next run, requests the rest with ``Range`` and ``If-Range``. The file gets its
  own name only after its SHA-256 has matched the hash in the record.
* **Upload to records.** The folder says which record and which field each file is of, see
  :mod:`.records`. A file that a list has already, with the same bytes and name, is not sent again.
* **Stopping.** Every file is transferred in a thread of a pool. When the caller closes the iterator
  of findings, or the user presses Ctrl-C, ``Client.stop`` sets an event and shuts down every
  socket. Threads that wait for bytes get an error at once, and threads that hash a file notice the
  event before the next chunk.
"""
