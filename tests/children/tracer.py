"""Traces a process (ptrace(2)), and does not wait for its end; until a line comes."""

import ctypes
import sys

PTRACE_SEIZE = 0x4206

libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None) < 0:
    sys.exit(f"errno {ctypes.get_errno()}")
print("traces", flush=True)
sys.stdin.readline()
