// The output of one command, null if it failed: one pipe, for stdout.

export const run = async (argv: string[]): Promise<string | null> => {
  const child = Bun.spawn(argv, { stdin: "inherit", stdout: "pipe", stderr: "inherit" });
  const output = await child.stdout.text();
  return (await child.exited) === 0 ? output : null;
};
