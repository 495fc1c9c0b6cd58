"""Mode ``cgi``: CGI/1.1 (RFC 3875).

The core is free of I/O and of the event loop: ``request.py`` takes a request's target apart,
``environment.py`` makes meta-variables of a request, ``output.py`` reads what a script writes.
``scripts.py`` finds scripts in a directory, and looks at nothing else. The server's part:
``gateway.py`` is what a route knows, ``exchange.py`` one request and its answer, ``gather.py``
and ``spool.py`` the body of a request whose length is not known before its end.
"""
