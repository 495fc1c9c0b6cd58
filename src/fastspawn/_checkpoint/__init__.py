"""checkpoint(): a Python program says up to where it is the same for every request.

    freezing.py     the process becomes a template, and each request is a fork of it,
    files.py        as long as the files that it came from are what they were,
    hooks.py        which runs what is to be done around a fork, but for what the template has done,
    environment.py  has its own variables,
    seeds.py        its own random numbers,
    stdin.py        its own input behind the objects that the program has,
    exits.py        exit handlers of its own,
    output.py       nothing of another's in its output, and all of its own,
    ending.py       and ends as any Python process does, without taking down what it shares

Whatever can be done once is done in the template: what a fork touches, it copies.
"""

from __future__ import annotations

from fastspawn import _core


def checkpoint() -> None:
    """Everything above this call runs once, everything below it once per request.

        import heavy
        from fastspawn import checkpoint

        checkpoint()
        print(heavy.answer(sys.stdin.read()))

    In a process of a ``fastspawn.Template`` (so under ``--strategy snapshot``) the process that
    comes here first becomes the template: each request, its own included, goes on from here in a
    fork, with the request's arguments, environment and standard streams. Anywhere else it returns
    at once, so the same program runs everywhere.

    What was printed above is the first request's. What the program changed in ``os.environ`` holds
    for all requests. Exit handlers that were registered above are the template's, and run when that
    ends; those registered below run at the end of their request, and then what was made below is
    finalized and all streams are flushed, as at any end. Forks share what is random by start only:
    the hash seed, and whatever the program drew above; ``random``, ``uuid``, ``ssl``,
    ``random()`` of sqlite3 and apsw, and numpy's global generator are seeded anew.

    Handlers of forks run around each: Python's (``os.register_at_fork``) and those of libraries
    (pthread_atfork(3)). With more than one thread once those before a fork have run, or with an
    event loop, nothing is frozen: a RuntimeWarning says so, and the process goes on as a plain one.
    """
    arguments = _core._arguments()
    if arguments is not None:
        from fastspawn._checkpoint.freezing import freeze

        freeze(arguments)
