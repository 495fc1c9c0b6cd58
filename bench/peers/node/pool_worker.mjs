// The worker of pool.mjs: one command at a time, with this process's own stdio.

import { spawn } from "node:child_process";

let child = null;

const finish = (code) => {
  if (child === null) return; // "error" and "exit" of one command
  child = null;
  process.send(code);
};

process.on("disconnect", () => process.exit());
process.on("message", (message) => {
  if (message === "reset") {
    child?.kill("SIGKILL");
    return;
  }
  const [command, ...args] = message;
  child = spawn(command, args, { stdio: "inherit" });
  child.on("error", () => finish(-1));
  child.on("exit", (code) => finish(code ?? -1));
});
