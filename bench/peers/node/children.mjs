// Peer: one event loop for HTTP; the spawning is done by forked processes, which send the output
// back over their IPC channel. --exec and --worker make them processes of another runtime.

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { serve } from "./dispatch.mjs";
import { exec, size, worker } from "./options.mjs";

const program = worker ?? fileURLToPath(new URL("./worker.mjs", import.meta.url));
const children = Array.from({ length: size }, () =>
  fork(program, [], { execPath: exec ?? process.execPath, execArgv: [] }),
);

serve(children, (child, message) => child.send(message));
