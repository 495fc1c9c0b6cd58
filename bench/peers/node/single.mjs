// Peer: one event loop, one spawn per request, the child's output piped into the answer.

import { spawn } from "node:child_process";
import http from "node:http";
import { argv, port, stdio } from "./options.mjs";

const [command, ...args] = argv;

http
  .createServer((_, response) => {
    spawn(command, args, { stdio })
      .on("error", () => response.destroy())
      .stdout.pipe(response);
  })
  .listen(port, "127.0.0.1");
