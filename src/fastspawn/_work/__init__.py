"""``fastspawn work``: a process for each message of a queue.

``source.py`` says what a queue is; ``jetstream.py`` (NATS) and ``redisstream.py`` are two, imported
when their URL is asked for. ``worker.py`` runs what comes, by a strategy of the server's,
``verdict.py`` judges how it ended. ``start.py`` is the way in.
"""
