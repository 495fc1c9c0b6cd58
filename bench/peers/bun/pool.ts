// Peer: Bun.serve for HTTP; the spawning is done by Bun processes, which send the output back
// over their IPC channel.
//
//     bun pool.ts --port PORT [--size N] -- CMD ARG...

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";

const { values, positionals: argv } = parseArgs({
  args: Bun.argv.slice(2),
  allowPositionals: true,
  options: { port: { type: "string" }, size: { type: "string" } },
});

const waiting = new Map<number, (output: string | null) => void>();
let last = 0;

const workers = Array.from({ length: Number(values.size ?? availableParallelism()) }, () =>
  Bun.spawn([process.execPath, `${import.meta.dir}/worker.ts`], {
    stdio: ["inherit", "inherit", "inherit"],
    ipc([id, output]: [number, string | null]) {
      waiting.get(id)!(output);
      waiting.delete(id);
    },
  }),
);

const run = () =>
  new Promise<string | null>((resolve) => {
    const id = ++last;
    waiting.set(id, resolve);
    workers[id % workers.length].send([id, argv]);
  });

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(values.port),
  fetch: async () => {
    const output = await run();
    return new Response(output, { status: output === null ? 500 : 200 });
  },
});
