"""gunicorn --config config/gunicorn.conf.py --paste config/local.ini"""

bind = "127.0.0.1:8888"
# With PostgreSQL, more: memory storage is not shared between processes.
workers = 1
# Threads, as uploads take as long as their clients do. The sync worker serves one at a time, and
# is killed by ``timeout`` in the middle of a slow one.
worker_class = "gthread"
threads = 32
timeout = 120
