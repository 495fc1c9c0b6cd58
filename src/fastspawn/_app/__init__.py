"""What ``fastspawn serve --wsgi`` and ``--asgi`` run: an application, up to a checkpoint once and
below it once per request.

    run.py       the steps, in their order
    load.py      the application that MODULE:APP names
    request.py   what the server says of a request, apart from the environment
    output.py    where the answer goes, apart from standard output
    wsgi.py      PEP 3333
    asgi/        ASGI 3.0
    broken.py    an application that has come to be none
"""
