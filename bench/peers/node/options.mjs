// The options of every program here, which Node, Deno and Bun read alike:
//
//     --port PORT [--pipes] [--size N] [--exec PATH --worker PATH] -- CMD ARG...
//
// --pipes leaves spawn's defaults as they are: three pipes per child, where every other row has
// one, for stdout, and lets the child inherit the server's stdin and stderr.

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    port: { type: "string" },
    pipes: { type: "boolean", default: false },
    size: { type: "string" }, // of a pool; one per core where it is not given
    exec: { type: "string" }, // the runtime of a pool's workers; this one where it is not given
    worker: { type: "string" }, // their program
  },
});

export const argv = positionals;
export const port = Number(values.port);
export const size = Number(values.size ?? availableParallelism());
export const stdio = values.pipes ? "pipe" : ["inherit", "pipe", "inherit"];
export const { exec, worker } = values;
