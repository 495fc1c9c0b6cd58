#!/bin/sh
# duckdb 2.0.1 (Python): a connection with threads=1, which says that it has one thread, starts eight.
#
# Expected: "threads" is all of them, as it was (1.4.4: none beside the caller's, for two one), so that
# threads=1 is the way to a process that may be forked, traced or put under a small limit of threads.
# Seen: since there is asynchronous I/O, "async_threads" of them more wait from the connection's first
# moment on, also in a database that is in memory alone and on a machine of two processors.
# current_setting('threads') goes on saying 1. With async_threads=0 the process has one thread, and all
# queries tried (tables, a join, a file of Parquet written and read) answer as before.
#
# Needs Linux, Python 3.10 or newer and the package index. Prints what it saw; fails if that changes.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >count.py <<'END'
import os
import sys

import duckdb


def running() -> int:
    return len(os.listdir("/proc/self/task"))


def threads(**config: int) -> int:
    """How many more there are while a connection is open that does its work rightly."""
    before = running()
    with duckdb.connect(config=config) as connection:
        connection.execute("create table t as select range n from range(1000)")
        query = "select count(*) from t a join t b using (n)"
        assert connection.execute(query).fetchone() == (1000,)
        connection.execute("copy t to 'numbers.parquet'")
        query = "select sum(n) from 'numbers.parquet'"
        assert connection.execute(query).fetchone() == (499500,)
        said = connection.execute("select current_setting('threads')").fetchone()
        assert said == (config["threads"],)
        return running() - before


seen = {"threads=1": threads(threads=1), "threads=2": threads(threads=2)}
wanted = {"threads=1": 0, "threads=2": 1}
if duckdb.__version__ == "2.0.1":
    seen["threads=1, async_threads=0"] = threads(threads=1, async_threads=0)
    wanted = {"threads=1": 8, "threads=2": 9, "threads=1, async_threads=0": 0}
print(f"duckdb {duckdb.__version__}:", ", ".join(f"{k}: {v} more" for k, v in seen.items()))
if seen != wanted:
    sys.exit(f"changed: {wanted} was seen")
END

for version in 1.4.4 2.0.1; do
    python3 -m venv "$version"
    "$version/bin/pip" install -q "duckdb==$version"
    "$version/bin/python" count.py
done
# Seen: duckdb 1.4.4: threads=1: 0 more, threads=2: 1 more
#       duckdb 2.0.1: threads=1: 8 more, threads=2: 9 more, threads=1, async_threads=0: 0 more
