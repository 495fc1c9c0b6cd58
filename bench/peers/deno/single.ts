// Peer: Deno.serve and Deno.Command.
//
//     deno run --allow-all single.ts --port PORT [--pipes] -- CMD ARG...
//
// --pipes leaves output()'s defaults as they are: a second pipe, for stderr, and no stdin.

import { answer, options } from "./command.ts";

Deno.serve({
  hostname: "127.0.0.1",
  port: options.port,
  onListen: () => {},
}, answer);
