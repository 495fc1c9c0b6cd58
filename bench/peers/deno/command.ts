// One command per request, for single.ts and parallel.ts.

import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    port: { type: "string", default: "0" },
    pipes: { type: "boolean", default: false },
  },
});

export const options = { port: Number(values.port), pipes: values.pipes };

const [program, ...args] = positionals;
const stdio = { stdin: "inherit", stdout: "piped", stderr: "inherit" } as const;
const command = new Deno.Command(program, options.pipes ? { args } : { args, ...stdio });

export const answer = async (): Promise<Response> => {
  const { success, stdout } = await command.output();
  return success ? new Response(stdout) : new Response(null, { status: 500 });
};
