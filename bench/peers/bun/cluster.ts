// Peer: the server of single.ts in one process per core, on one port by SO_REUSEPORT.
//
//     bun cluster.ts --port PORT -- CMD ARG...

import { availableParallelism } from "node:os";

const program = `${import.meta.dir}/single.ts`;
const servers = Array.from({ length: availableParallelism() }, () =>
  Bun.spawn([process.execPath, program, "--reuse-port", ...Bun.argv.slice(2)], {
    stdio: ["inherit", "inherit", "inherit"],
  }),
);

process.on("SIGTERM", async () => {
  for (const server of servers) server.kill();
  await Promise.all(servers.map((server) => server.exited));
  process.exit(0);
});
