// Peer: the server of single.mjs in one process per core, on one port, by node:cluster.

import cluster from "node:cluster";
import { size } from "./options.mjs";

if (cluster.isPrimary) {
  for (let i = 0; i < size; i++) cluster.fork();
} else {
  await import("./single.mjs");
}
