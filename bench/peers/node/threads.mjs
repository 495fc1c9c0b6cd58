// Peer: one event loop for HTTP; the spawning, which blocks its thread, is done by worker threads.

import { Worker } from "node:worker_threads";
import { serve } from "./dispatch.mjs";
import { size } from "./options.mjs";

const program = new URL("./worker.mjs", import.meta.url);
const threads = Array.from({ length: size }, () => new Worker(program));

serve(threads, (thread, message) => thread.postMessage(message));
