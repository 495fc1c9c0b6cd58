// The worker of pool.ts, and of ../node/children.mjs when Bun runs its workers.

import { run } from "./run";

process.on("disconnect", () => process.exit());
process.on("message", async ([id, argv]: [number, string[]]) => {
  process.send!([id, await run(argv).catch(() => null)]);
});
