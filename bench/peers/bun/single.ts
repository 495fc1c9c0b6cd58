// Peer: Bun.serve and Bun.spawn.
//
//     bun single.ts --port PORT [--reuse-port] -- CMD ARG...

import { parseArgs } from "node:util";
import { run } from "./run";

const { values, positionals: argv } = parseArgs({
  args: Bun.argv.slice(2),
  allowPositionals: true,
  options: {
    port: { type: "string" },
    "reuse-port": { type: "boolean", default: false },
  },
});

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(values.port),
  reusePort: values["reuse-port"],
  fetch: async () => {
    const output = await run(argv);
    return new Response(output, { status: output === null ? 500 : 200 });
  },
});
