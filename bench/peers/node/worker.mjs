// The worker of threads.mjs and children.mjs: spawns what it is told, answers with the output.

import { spawn } from "node:child_process";
import { parentPort } from "node:worker_threads";

const parent = parentPort ?? process;
const answer = parentPort
  ? (message) => parentPort.postMessage(message)
  : (message) => process.send(message);

parent.on("message", ([id, [command, ...args]]) => {
  const child = spawn(command, args, { stdio: ["inherit", "pipe", "inherit"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => (output += chunk));
  child.on("error", () => answer([id, null]));
  child.on("close", (code) => code < 0 || answer([id, code === 0 ? output : null]));
});
