// A server that has its commands run by workers, threads or processes: each takes as many at once
// as it is sent, in turn, and answers [id, output], with null for a command that failed.

import http from "node:http";
import { argv, port } from "./options.mjs";

export const serve = (workers, send) => {
  const waiting = new Map();
  let last = 0;

  for (const worker of workers) {
    worker.on("message", ([id, output]) => {
      waiting.get(id)(output);
      waiting.delete(id);
    });
  }

  const run = () =>
    new Promise((resolve) => {
      const id = ++last;
      waiting.set(id, resolve);
      send(workers[id % workers.length], [id, argv]);
    });

  http
    .createServer(async (_, response) => {
      const output = await run();
      if (output === null) response.statusCode = 500;
      response.end(output);
    })
    .listen(port, "127.0.0.1");
};
