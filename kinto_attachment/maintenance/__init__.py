"""The commands that an operator runs on a server. Each one is a generator of findings.

No transaction is open while bytes are transferred, and memory does not grow with the number of
files: rows are read a page at a time, each page in a transaction of its own, and whatever a command
has to remember goes into a temporary file.
"""
