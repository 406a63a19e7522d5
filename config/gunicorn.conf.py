"""gunicorn --config config/gunicorn.conf.py --paste config/local.ini

gunicorn passes request bodies on to Kinto as they arrive. The environment variable WEB_CONCURRENCY
sets the number of processes. With the memory backends of Kinto, use one process only.
"""

import os

bind = "127.0.0.1:8888"

# The number of uploads and downloads that a process can serve at the same time. A request that
# waits for an image holds a thread, too: keep images.queue + images.workers below half of this
# number.
worker_class = "gthread"
threads = 16

# Seconds after which gunicorn ends a worker process that hangs. Threads that wait for slow clients
# do not count as hanging.
timeout = 60
graceful_timeout = 60

# More connections than threads can be open, because a connection without a request holds no thread.
worker_connections = 1000

# Seconds for which a connection stays open for the next request. nginx closes its own sooner.
keepalive = 75

# gunicorn would create a socket for its control program in the home directory of its user.
control_socket_disable = True


def on_starting(server):
    """Tell Kinto which ini file it was started with: it shows the checksum of that file at /v1/,
    and logs an error if it cannot find the file."""
    if server.cfg.paste:
        os.environ.setdefault("KINTO_INI", server.cfg.paste.partition("#")[0])
