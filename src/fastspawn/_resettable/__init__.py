"""Resettable pools: long-lived workers that hold a command as their child, and reset by killing it.

Each file imports only files above it:

    protocol.py  the frames between a pool and its workers (docs/strategies.md describes them)
    settings.py  what a worker is told of a command
    job.py       one request: PoolJob
    worker.py    one worker process, and the request that it runs
    pool.py      ResettablePool: keeps the workers, and gives each request to one
"""
