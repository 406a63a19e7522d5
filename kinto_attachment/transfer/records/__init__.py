"""Folders in which each file is of a certain record: what ``download`` writes, and ``upload
--records`` reads.

* The files of a field lie in ``{record}/{field}/{position}-{filename}``, counted from 001.
* The file of ``attachment`` lies where its record wants it: at the attribute ``path``, or under its
  filename.
* An index (:mod:`.index`) names the records of all files whose paths do not tell. There is none if
  no record has files in other fields.
"""
