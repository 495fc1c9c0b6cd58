// A worker of fastspawn.ResettablePool for Node; docs/strategies.md has the protocol.
//
//     fastspawn serve --strategy pool --worker 'node examples/workers/node/worker.js' -- sort
const { spawn } = require('node:child_process')
const { constants } = require('node:os')

let child = null
let unread = Buffer.alloc(0)

function send(kind, payload) {
  const body = Buffer.from(payload)
  const head = Buffer.from(kind + '\0\0\0\0')
  head.writeUInt32BE(body.length, 1)
  process.stdout.write(Buffer.concat([head, body])) // blocks while the pool does not read
}

function kill(pid, signal) {
  try { process.kill(-pid, signal) } catch {} // the whole group; perhaps it has gone
}

function run(err, input, cwd, count, words) {
  const env = Object.fromEntries(words.slice(count).map((word) => word.split(/=(.*)/s, 2)))
  const kind = { inherit: 'inherit', discard: 'ignore' }[err] ?? 'pipe'
  const mine = spawn(words[0], words.slice(1, count), {
    cwd: cwd || undefined, env, detached: true, stdio: [input === 'pipe' ? 'pipe' : 'ignore', 'pipe', kind],
  })
  mine.on('error', (error) => { if (!mine.pid) send('F', String(-error.errno)) })
  if (!mine.pid) return
  child = mine
  send('S', String(mine.pid))
  mine.stdin?.on('error', () => {}) // it need not read
  mine.stdout.on('data', (data) => send('O', data))
  mine.stderr?.on('data', (data) => send(err === 'merge' ? 'O' : 'E', data))
  mine.on('exit', () => {
    kill(mine.pid, 'SIGKILL') // the reset
    setTimeout(() => { mine.stdout.destroy(); mine.stderr?.destroy() }, 50).unref() // held by others
  })
  mine.on('close', (code, signal) => {
    child = null
    send('X', String(signal ? -constants.signals[signal] : code))
  })
}

function obey(kind, body) {
  if (kind === 'R') {
    const [err, input, cwd, count, ...words] = body.toString().split('\0')
    run(err, input, cwd, Number(count), words)
  } else if (child && kind === 'K') kill(child.pid, Number(body.toString()))
  else if (child && kind === 'I' && body.length === 0) child.stdin.end()
  else if (child && kind === 'I') child.stdin.write(body, () => send('C', String(body.length)))
}

process.stdin.on('data', (data) => {
  unread = Buffer.concat([unread, data])
  while (unread.length >= 5 && unread.length >= 5 + unread.readUInt32BE(1)) {
    const end = 5 + unread.readUInt32BE(1)
    const [kind, body] = [unread.toString('latin1', 0, 1), unread.subarray(5, end)]
    unread = unread.subarray(end)
    obey(kind, body)
  }
})
process.stdin.on('end', () => { if (child) kill(child.pid, 'SIGKILL'); process.exit() })
send('H', '1')
