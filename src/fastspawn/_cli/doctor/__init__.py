"""``fastspawn doctor``: what this machine gives, and what of it each strategy needs.

    features.py    what the kernel is asked for, one trial each (fastspawn._features, _trial)
    strategies.py  each strategy, tried by serving with it
    machine.py     what is read, and not tried: limits, container, versions
    command.py     the words

Whether something works is known by trying, never by a version: filters of containers refuse what
the kernel has. Versions serve for advice alone.
"""
