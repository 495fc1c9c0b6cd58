"""``refuse_call.py CALL[=ERRNO],... CMD ARG...``: run a command on a kernel that lacks these.

CALL is the number of a system call, or NUMBER/ARGUMENT/VALUE: if it is called with this one. They
fail with ENOSYS or EINVAL, or what is said; ``=kill`` ends who calls one.
"""

import ctypes
import os
import struct
import sys

ARCH_X86_64 = 0xC000003E
LOAD, JUMP_IF, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
ENOSYS, EINVAL = 38, 22

calls = [each.partition("=") for each in sys.argv[1].split(",")]
# seccomp_data: nr, arch, instruction_pointer, args[6].
instructions = [
    (LOAD, 0, 0, 4),
    (JUMP_IF, 1, 0, ARCH_X86_64),
    (RETURN, 0, 0, ALLOW),
]
for call, _, how in calls:
    number, *asked = [int(word, 0) for word in call.split("/")]
    verdict = KILL if how == "kill" else REFUSE | int(how or (EINVAL if asked else ENOSYS))
    instructions += [(LOAD, 0, 0, 0), (JUMP_IF, 0, 3 if asked else 1, number)]
    if asked:
        instructions += [(LOAD, 0, 0, 16 + 8 * asked[0]), (JUMP_IF, 0, 1, asked[1])]
    instructions.append((RETURN, 0, 0, verdict))
instructions.append((RETURN, 0, 0, ALLOW))
program = b"".join(struct.pack("=HBBI", *each) for each in instructions)
buffer = ctypes.create_string_buffer(program)
code = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for call in ((38, 1, 0, 0, 0), (22, 2, code)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    if libc.prctl(*call) < 0:
        raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
