"""Kinto as a WSGI application, for servers that load it from a Python module, such as granian.

The environment variable ``KINTO_INI`` names the ini file.
"""

import os

from pyramid.paster import get_app, setup_logging

INI = os.environ["KINTO_INI"]

setup_logging(INI)
application = get_app(INI)
