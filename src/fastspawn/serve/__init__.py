"""The HTTP server: ``python -m fastspawn.serve [options] [--] CMD ARG...``.

One process per request. The rooms, each of which names only those below it::

    cli.py        flags to a running server
    host/         the processes that serve, and what they need of the system
    service.py    what the connections of one event loop share
    routes/       which command a request runs, and when
    cgi/ ws/      modes: how an answer comes of a process (``raw`` is http's own)
    http/         bytes to requests, output to answers
    strategies/   how the process for a request comes to be
    figures/      what is counted and logged
    config/       what the operator says, checked
    paths.py      request targets and path templates
    job.py        a process, as all of them know it
"""
