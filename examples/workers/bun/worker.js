// A worker of fastspawn.ResettablePool for Bun; docs/strategies.md has the protocol.
//
//     fastspawn serve --strategy pool --worker 'bun examples/workers/bun/worker.js' -- sort
import { constants } from 'node:os'
import { writeSync } from 'node:fs'

const READ = 65536 // bytes in a frame of output, at most
let child = null

function send(kind, payload) {
  const body = Buffer.from(payload)
  const head = Buffer.from(kind + '\0\0\0\0')
  head.writeUInt32BE(body.length, 1)
  let frame = Buffer.concat([head, body])
  while (frame.length) frame = frame.subarray(writeSync(1, frame)) // blocks while no one reads
}

function kill(pid, signal) {
  try { process.kill(-pid, signal) } catch {} // the whole group; perhaps it has gone
}

async function pump(stream, kind) {
  if (!(stream instanceof ReadableStream)) return
  for await (const data of stream)
    for (let at = 0; at < data.length; at += READ) send(kind, data.subarray(at, at + READ))
}

async function run(err, input, cwd, count, words) {
  let mine
  try {
    mine = Bun.spawn(words.slice(0, count), {
      cwd: cwd || undefined,
      env: Object.fromEntries(words.slice(count).map((word) => word.split(/=(.*)/s, 2))),
      detached: true,
      stdin: input === 'pipe' ? 'pipe' : 'ignore',
      stdout: 'pipe',
      stderr: { inherit: 'inherit', discard: 'ignore' }[err] ?? 'pipe',
    })
  } catch (error) {
    return send('F', String(Math.abs(error.errno ?? constants.errno[error.code] ?? constants.errno.ENOENT)))
  }
  child = mine
  send('S', String(mine.pid))
  const outputs = Promise.all([pump(mine.stdout, 'O'), pump(mine.stderr, err === 'merge' ? 'O' : 'E')])
  await mine.exited
  kill(mine.pid, 'SIGKILL') // the reset
  await Promise.race([outputs, Bun.sleep(50)]) // others may hold its pipes
  child = null
  send('X', String(mine.signalCode ? -constants.signals[mine.signalCode] : mine.exitCode))
}

async function feed(stdin, body) {
  try {
    if (body.length === 0) return await stdin.end()
    stdin.write(body)
    await stdin.flush()
  } catch {} // it need not read
  if (body.length) send('C', String(body.length))
}

function obey(kind, body) {
  if (kind === 'R') {
    const [err, input, cwd, count, ...words] = body.toString().split('\0')
    run(err, input, cwd, Number(count), words)
  } else if (child && kind === 'K') kill(child.pid, Number(body.toString()))
  else if (child && kind === 'I') feed(child.stdin, Buffer.from(body))
}

send('H', '1')
let unread = Buffer.alloc(0)
for await (const data of Bun.stdin.stream()) {
  unread = Buffer.concat([unread, data])
  while (unread.length >= 5 && unread.length >= 5 + unread.readUInt32BE(1)) {
    const end = 5 + unread.readUInt32BE(1)
    const [kind, body] = [unread.toString('latin1', 0, 1), unread.subarray(5, end)]
    unread = unread.subarray(end)
    obey(kind, body)
  }
}
if (child) kill(child.pid, 'SIGKILL')
process.exit()
