"""The HTTP server: ``python -m fastspawn.serve [options] [--] CMD ARG...``.

One process per request. A request reads down the files and its answer reads back up::

    protocol.py   bytes -> requests, one Connection per client, answers in order
    routing.py    which route a request belongs to (``paths.py``: the pure part)
    filling.py    what of the request's path gets into command line and environment
    modes.py      how a process comes of a request, and an answer of the process
    exchange.py   one request and its answer
    admission.py  how many may run, how many may wait (``refusals.py``: when the others hear no)
    strategy.py   how the process comes to be (engine or standard library)
    response.py   status lines, header fields, chunked framing

``service.py`` holds what is common to them, ``route.py`` what each route has for itself.
``server.py`` runs these on an event loop, ``workers.py`` runs several such servers on one port.

``options.py`` is the list of options; ``cli.py``, ``configfile.py`` and ``settings.py`` make a
``config.Config`` of flags, environment variables and a file.
"""
