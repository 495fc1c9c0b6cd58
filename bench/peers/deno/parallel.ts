// Peer: the same for `deno serve --parallel`, which runs it in one thread per core.

import { answer } from "./command.ts";

export default { fetch: answer } satisfies Deno.ServeDefaultExport;
