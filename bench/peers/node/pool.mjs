// Peer: a pool of resettable processes. A worker runs one command at a time with its own stdio,
// so that the child writes straight into the pipe that this server reads; nothing is copied by
// the worker. A request whose client has gone resets its worker, which kills the command.
// --exec makes the workers processes of another runtime.

import { fork } from "node:child_process";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { argv, exec, port, size } from "./options.mjs";

const program = fileURLToPath(new URL("./pool_worker.mjs", import.meta.url));
const idle = [];
const waiting = [];

class Worker {
  #response = null;

  constructor() {
    this.process = fork(program, [], {
      execPath: exec ?? process.execPath,
      execArgv: [],
      stdio: ["inherit", "pipe", "inherit", "ipc"],
    });
    this.process.stdout.on("data", (chunk) => this.#response?.write(chunk));
    // The output was in the pipe before the worker could tell the exit, but the same turn of the
    // event loop may hand out the message first. After the next whole turn it has been read.
    this.process.on("message", (code) =>
      setImmediate(() => setImmediate(() => this.#finish(code))),
    );
  }

  run(response) {
    this.#response = response;
    response.once("close", () => {
      if (this.#response === response) this.process.send("reset");
    });
    this.process.send(argv);
  }

  #finish(code) {
    const response = this.#response;
    this.#response = null;
    if (code !== 0 && !response.headersSent) response.statusCode = 500;
    response.end();
    release(this);
  }
}

const release = (worker) => {
  const response = waiting.shift();
  if (response) worker.run(response);
  else idle.push(worker);
};

for (let i = 0; i < size; i++) idle.push(new Worker());

http
  .createServer((_, response) => {
    const worker = idle.pop();
    if (worker) worker.run(response);
    else waiting.push(response);
  })
  .listen(port, "127.0.0.1");
