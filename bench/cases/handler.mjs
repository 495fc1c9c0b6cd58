// A request handler for the strategy warm: loaded before the request comes, it waits on stdin.

import process from "node:process";

process.stdin.on("data", () => {});
process.stdin.on("end", () => console.log("hi"));
