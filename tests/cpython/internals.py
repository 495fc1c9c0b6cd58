"""Cases of CPython's suites that look at its own internals, each with the reason.

    suite -> case -> reason

They may fail with our names in the standard library's place; no other may that passes without.
"""

from __future__ import annotations

FORK_EXEC = "replaces subprocess's private _fork_exec, which starts no child of ours"

INTERNALS: dict[str, dict[str, str]] = {
    "test.test_subprocess": {
        "POSIXProcessTestCase.test_exception_errpipe_normal": FORK_EXEC,
        "POSIXProcessTestCase.test_exception_errpipe_bad_data": FORK_EXEC,
        # Of one class or another, depending on the version.
        "POSIXProcessTestCase.test__use_vfork": FORK_EXEC,
        "ProcessTestCase.test__use_vfork": FORK_EXEC,
        "ProcessTestCaseNoPoll.test__use_vfork": FORK_EXEC,
    },
}

MOST = 0.02
"""The part of a suite that may be listed."""
