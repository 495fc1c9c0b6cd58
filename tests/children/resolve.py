"""Prints what /bin/sh resolves to in the directory given, as no one in particular."""

import os
import sys

from fastspawn import Command

if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(Command(["/bin/sh"], cwd=sys.argv[1]).resolve())
