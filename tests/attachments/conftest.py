"""All tests of ``attachment`` also run with one field of another name."""

from tests.support.other_field import field_name, make_server, make_site

__all__ = ["field_name", "make_server", "make_site"]
