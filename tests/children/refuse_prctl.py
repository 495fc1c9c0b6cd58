"""``refuse_prctl.py OPTION CMD ARG...``: run a command on a kernel that knows one prctl(2) less."""

import ctypes
import os
import struct
import sys

ARCH_X86_64, PRCTL = 0xC000003E, 157
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE_EINVAL = 0x7FFF0000, 0x00050000 | 22

option = int(sys.argv[1])
# seccomp_data: nr, arch, instruction_pointer, args[6].
program = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (LOAD, 0, 0, 4),
        (JUMP_IF, 0, 5, ARCH_X86_64),
        (LOAD, 0, 0, 0),
        (JUMP_IF, 0, 3, PRCTL),
        (LOAD, 0, 0, 16),
        (JUMP_IF, 0, 1, option),
        (RETURN, 0, 0, REFUSE_EINVAL),
        (RETURN, 0, 0, ALLOW),
    )
)
buffer = ctypes.create_string_buffer(program)
code = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for call in ((38, 1, 0, 0, 0), (22, 2, code)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    if libc.prctl(*call) < 0:
        raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
