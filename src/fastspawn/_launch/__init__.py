"""What runs a Python script that is to be frozen where its own imports have run (``at="imports"``).

    __main__.py  is given to Python in place of the script, and becomes it,
    script.py    reads the script, as Python finds and reads it,
    point.py     and says above which of its statements there is a checkpoint

It imports nothing from a file before the script does: names of the script's own directory are the
script's. So __main__.py loads the other two by their place.
"""
