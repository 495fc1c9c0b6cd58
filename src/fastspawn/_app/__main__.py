"""``python -m fastspawn._app KIND MODULE:APP``: see ``run.py``."""

import sys

from fastspawn._app.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
