"""Warm pools: processes that were started before their request came.

``job.py`` is one request, ``pool.py`` keeps the processes that wait for one.
"""
