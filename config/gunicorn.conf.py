"""gunicorn --paste config/local.ini -c config/gunicorn.conf.py

Bodies reach Kinto as they arrive. WEB_CONCURRENCY is the number of processes; leave it at one as
long as the ini file has memory backends.
"""

import os

bind = "127.0.0.1:8888"

# A thread for each upload or download that may be under way at once in a process. Requests that
# wait for an image hold one, too: keep images.queue + images.workers below half of this number.
worker_class = "gthread"
threads = 16

# A thread that waits for a slow client does not count; seconds until a worker that hangs is ended.
timeout = 60
graceful_timeout = 60

# Without nginx in front, more connections than threads can be open at once: those that wait for
# their next request hold no thread.
worker_connections = 1000

# Seconds that a connection stays open for the next request: longer than nginx keeps its own.
keepalive = 75


def on_starting(server):
    """Tell Kinto which ini file it was started with: it shows the checksum of that file at /v1/,
    and logs an error if it cannot find the file."""
    if server.cfg.paste:
        os.environ.setdefault("KINTO_INI", server.cfg.paste.partition("#")[0])
