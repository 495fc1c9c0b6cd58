"""Each Python of the venv of `make coverage` begins with this: lines of fastspawn count from here.

By a .pth file, and not by a variable of the environment, which many a test gives anew to its
children, or compares.
"""

import os

import coverage

VARIABLE = "COVERAGE_PROCESS_START"

os.environ[VARIABLE] = os.path.join(os.path.dirname(__file__), "counted.toml")
coverage.process_startup()
del os.environ[VARIABLE]
