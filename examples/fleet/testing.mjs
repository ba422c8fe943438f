/* testing.mjs - what test-page.mjs and test-openapi.mjs share: checks, and the programs that they start.
   FLEET may name the program. */

import { spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const FLEET = process.env.FLEET || path.join(path.dirname(fileURLToPath(import.meta.url)), 'fleet');
const PATIENCE_MS = 60000;

const counts = { passed: 0, failed: 0, skipped: 0 };
const running = new Set();                     /* programs */

function check(right, what) {
  if (right) counts.passed++;
  else counts.failed++, console.log(`${what}\n${new Error().stack.split('\n').slice(2, 3).join('')}`);
}

async function until(probe, what) {
  const end = Date.now() + PATIENCE_MS;
  while (Date.now() < end) {
    const value = await probe();
    if (value) return value;
    await new Promise(done => setTimeout(done, 20));
  }
  throw Error(`after ${PATIENCE_MS} ms still not: ${what}`);
}

function program(args) {
  const p = spawn(FLEET, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const one = { args, process: p, out: '', over: new Promise(done => p.on('exit', done)) };
  p.on('error', error => { one.out += error.message; });
  for (const stream of [p.stdout, p.stderr]) stream.on('data', data => { one.out += data; });
  running.add(one);
  one.over.then(() => running.delete(one));
  return one;
}

async function stop(one) {
  one.process.kill('SIGTERM');
  await one.over;
}

function killAll() {
  for (const one of running) one.process.kill('SIGKILL');
}

async function server(...options) {
  const one = program(['server', '--tcp-port', '0', '--rest-port', '0', '--timeout', '2', ...options]);
  const ports = await until(() => one.out.match(/devices on [\d.]+:(\d+)\n.*:(\d+)\/docs/), `fleet server listens: ${one.out}`);
  return Object.assign(one, { tcp: +ports[1], rest: +ports[2], url: `http://127.0.0.1:${ports[2]}/docs` });
}

/* The last line of a test, and its exit status. */
function finish() {
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = counts.failed ? 1 : 0;
}

export { PATIENCE_MS, check, counts, finish, killAll, program, server, stop, until };
