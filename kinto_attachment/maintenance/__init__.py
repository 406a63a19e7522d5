"""What an operator does to the files of a whole server. Every job is a generator of findings.

Nothing is held while bytes move, and memory does not grow with the number of files: rows are read a
page at a time, each page in a transaction of its own, and what a job has to remember is in a
temporary file.
"""
