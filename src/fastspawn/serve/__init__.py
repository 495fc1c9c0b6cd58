"""The HTTP server: ``python -m fastspawn.serve [options] [--] CMD ARG...``.

One process per request. A request reads down the files and its answer reads back up::

    protocol.py   bytes -> requests, one Connection per client, answers in order
    exchange.py   one request and its answer
    admission.py  how many may run, how many may wait
    strategy.py   how the process comes to be (engine or standard library)
    response.py   status lines, header fields, chunked framing

``server.py`` runs these on an event loop, ``workers.py`` runs several such servers on one
port, ``cli.py`` turns a command line into a ``config.Config``.
"""
