"""The doors: one module each, and the one table from errors to HTTP."""
