/* test-openapi - the document /docs-json against the server that it is of, by others' programs: a validator of OpenAPI,
   JSON Schema (ajv) over an answer of every endpoint and status, and a TypeScript client that is made of it.
     npm install --no-save --prefix /tmp/api @seriousme/openapi-schema-validator ajv ajv-formats openapi-typescript openapi-fetch typescript@5
     OPENAPI=/tmp/api node examples/fleet/test-openapi.mjs
   FLEET may name the program. The last line counts; exit status 1 if anything failed. */

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { check, counts, finish, killAll, program, server, stop, until } from './testing.mjs';

const MODULES = path.resolve(process.env.OPENAPI || '.', 'node_modules');
const TOKEN = 'a-token-of-the-test-0123456789', MUTE = 8, MAX_STREAMS = 256, MAX_DEVICE_CALLS = 16, CHANGE = /event: change\n(?:.+\n)*?data: (.*)\n\n/;
let folder;                                    /* beside the modules: a client in it finds them */

/* ---- others' programs ---- */

/* Run one of them: its output; or, if it fails, null, and what it said is shown. */
function run(what, file, ...args) {
  return new Promise(done => execFile(process.execPath, [file, ...args], { cwd: folder }, (error, out, err) => {
    check(!error, `${what}: ${out}${err}`);
    done(error ? null : out);
  }));
}

const bin = name => path.join(MODULES, '.bin', name);

/* Functions that say what is wrong with a value of a schema of the document: '' is nothing. What a schema does not name is
   wrong, too; and so is a schema in which something has no effect, as ajv is strict. */
function schemas(api) {
  const require = createRequire(path.join(MODULES, 'x')), Ajv = require('ajv/dist/2020').default;
  const ajv = new Ajv({ strict: true, allowUnionTypes: true, allErrors: true });
  require('ajv-formats')(ajv);
  const local = schema => JSON.parse(JSON.stringify(schema).replaceAll('#/components/schemas/', '#/$defs/'));
  return schema => {
    const fits = ajv.compile({ ...local(schema), $defs: local(api.components.schemas), ...(schema.$ref ? { type: 'object', unevaluatedProperties: false } : {}) });
    return value => fits(value) ? '' : `${ajv.errorsText(fits.errors)} in ${JSON.stringify(value).slice(0, 400)}`;
  };
}

/* ---- requests ---- */

/* {status, type, text}; of a stream, with `enough`, as much text as that is true of. */
function ask(s, method, target, { body, token, headers = {} }, enough = () => false) {
  return new Promise((done, failed) => {
    const request = http.request({ host: '127.0.0.1', port: s.rest, method, path: target, signal: AbortSignal.timeout(60000),
      headers: { ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}), ...(body ? { 'content-type': 'application/json' } : {}) } }, answer => {
      const one = { status: answer.statusCode, type: answer.headers['content-type'], text: '' };
      answer.on('data', data => {
        one.text += data;
        if (enough(one.text)) request.destroy(), done(one);
      });
      answer.on('end', () => done(one));
    });
    request.on('error', failed);
    request.end(body ? JSON.stringify(body) : undefined);
  });
}

/* All that the document has: {method, path, op, commands, body: of the examples}. */
function operations(api) {
  const example = ({ $ref }) => Object.fromEntries(Object.entries(api.components.schemas[$ref.split('/').pop()].properties).map(([name, p]) => [name, p.examples[0]]));
  return Object.entries(api.paths).flatMap(([at, methods]) => Object.entries(methods).map(([method, op]) => ({
    path: at, method: method.toUpperCase(), op, commands: op.tags[0] === 'Commands',
    body: op.requestBody && example(op.requestBody.content['application/json'].schema),
  })));
}

/* ---- answers ---- */

/* A server, devices of each kind that answers differ by, and what has been answered. */
async function begin(...options) {
  const s = await server(...options), devices = {};
  const list = async () => (await (await fetch(`http://127.0.0.1:${s.rest}/vehicles`)).json()).vehicles;
  for (const [name, count] of [['there', 1], ['gone', 1], ['mute', MUTE]]) {
    const before = (await list()).map(one => one.id);
    devices[name] = program(['device', '--count', String(count), '--report-every', '0', '--quiet', '127.0.0.1', String(s.tcp)]);
    const ids = await until(async () => (ids => ids.length === count && ids)((await list()).map(one => one.id).filter(id => !before.includes(id))), `${name} is known`);
    Object.assign(devices[name], { id: ids[0], ids });
  }
  await stop(devices.gone);
  await until(async () => (await list()).some(one => !one.connected), 'gone is gone');
  devices.mute.process.kill('SIGSTOP');
  return { s, devices, seen: new Set(), token: options.includes('--token-file') ? TOKEN : null };
}

async function end({ s, devices }) {
  for (const one of [devices.there, s]) await stop(one);
}

/* Answers that an operation's part of the document must be right about. */
function judge(t, one, answer) {
  const name = `${one.method} ${one.path} ${answer.status}`, content = one.op.responses[answer.status]?.content[answer.type];
  t.seen.add(name);
  if (!content) return check(false, `${name} ${answer.type} is not in the document: ${answer.text}`);
  const wrong = t.schema(content.schema)(answer.type === 'application/json' ? JSON.parse(answer.text) : answer.text);
  check(!wrong, `${name}: ${wrong}`);
}

async function call(t, one, id, more = {}, query = '') {
  const stream = one.path === '/events' ? text => text.includes('\n\n') : undefined;
  const answer = await ask(t.s, one.method, one.path.replace('{id}', id) + query, { body: one.body, token: t.token, ...more }, stream);
  judge(t, one, answer);
  return answer;
}

async function callPlainly(t, all) {
  const { there, gone } = t.devices;
  for (const one of all) {
    await call(t, one, there.id, {}, '?nonsense=1');
    await call(t, one, there.id, { token: null, headers: { origin: 'http://example.com' } });
    if (one.path.includes('{id}')) await call(t, one, randomUUID());
    if (one.path.includes('{id}')) await call(t, one, gone.id);
    if (one.path === '/vehicles') await call(t, one, '', {}, `?limit=1&connected=true&after=${one.op.parameters[1].example}`);
    if (one.op.operationId !== 'disconnect') await call(t, one, there.id);
  }
  for (const name of ['vehicle', 'vehicles', 'disconnect']) await call(t, all.find(one => one.op.operationId === name), there.id);
}

/* Devices that do not reply: the first call of each times out, and so many as the last one may not have are refused. Then
   they end, with a call of each under way. */
async function callInVain(t, all) {
  const commands = all.filter(one => one.commands), { mute } = t.devices, sleep = ms => new Promise(done => setTimeout(done, ms));
  const waiting = commands.map((one, i) => call(t, one, mute.ids[i]));
  const start = one => waiting[waiting.push(call(t, one, mute.ids[MUTE - 1])) - 1];
  for (let i = 0; i < MAX_DEVICE_CALLS; i++) start(commands[0]);
  for (const one of commands)
    await until(async () => (await Promise.race([start(one), sleep(100)]))?.status === 503, `${one.path} is refused`);
  await Promise.all(waiting);
  const last = commands.map((one, i) => call(t, one, mute.ids[i]));
  await sleep(500);                            /* until they are under way */
  mute.process.kill('SIGKILL');
  await Promise.all(last);
}

const streams = (t, n) => until(async () => (await (await fetch(`http://127.0.0.1:${t.s.rest}/`)).json()).streams === n, `${n} subscribers`);

/* A change as it comes; and one subscriber too many. */
async function subscribe(t, all) {
  const events = all.find(one => one.path === '/events'), frequency = all.find(one => one.op.operationId === 'frequency');
  const change = ask(t.s, 'GET', '/events', {}, text => CHANGE.test(text));
  await streams(t, 1);
  await call(t, frequency, t.devices.there.id);
  const wrong = t.schema({ $ref: '#/components/schemas/Change' })(JSON.parse((await change).text.match(CHANGE)[1]));
  check(!wrong, `a change: ${wrong}`);
  await streams(t, 0);
  const crowd = Array.from({ length: MAX_STREAMS }, () => http.get({ host: '127.0.0.1', port: t.s.rest, path: '/events' }).on('error', () => {}));
  await streams(t, MAX_STREAMS);
  await call(t, events, '');
  for (const request of crowd) request.destroy();
  await streams(t, 0);
}

async function answers(t, api) {
  const all = operations(api);
  t.schema = schemas(api);
  await subscribe(t, all);
  await callPlainly(t, all);
  await callInVain(t, all);
  for (const one of all)
    for (const status of Object.keys(one.op.responses)) check(t.seen.has(`${one.method} ${one.path} ${status}`), `${one.method} ${one.path} was never answered by ${status}`);
}

/* ---- the client ---- */

const CLIENT = `
import createClient from 'openapi-fetch';
import type { components, paths } from './schema.js';

declare const process: { argv: string[] };
const [, , baseUrl = '', token, id = ''] = process.argv;
const fleet = createClient<paths>({ baseUrl, headers: { Authorization: \`Bearer \${token}\` } });

function where(one: components['schemas']['Vehicle']): string {
  return one.position === null ? 'nowhere' : one.position.lat.toFixed(1);
}
// @ts-expect-error: a position may be null
export const careless = (one: components['schemas']['Vehicle']): number => one.position.lat;
// @ts-expect-error: seconds are a number
export const wrong = () => fleet.POST('/vehicles/{id}/frequency', { params: { path: { id } }, body: { seconds: '60' } });

const now = await fleet.GET('/vehicles/{id}', { params: { path: { id } } });
const page = await fleet.GET('/vehicles', { params: { query: { limit: 1 } } });
const told = await fleet.POST('/vehicles/{id}/frequency', { params: { path: { id } }, body: { seconds: 30 } });
const not = await fleet.POST('/vehicles/{id}/frequency', { params: { path: { id } }, body: { seconds: -1 } });
console.log(now.data && where(now.data), page.data?.vehicles.length, page.data?.next, told.data?.done, not.error?.message);
`;

async function client(t, file) {
  writeFileSync(path.join(folder, 'client.mts'), CLIENT);
  await run('openapi-typescript', bin('openapi-typescript'), file, '--output', 'schema.d.ts');
  await run('tsc', bin('tsc'), '--strict', '--module', 'nodenext', '--target', 'es2022', 'client.mts');
  const said = await run('the client', 'client.mjs', `http://127.0.0.1:${t.s.rest}`, TOKEN, t.devices.there.id);
  check(/^nowhere 1 \/vehicles\?\S+ true seconds has to be a whole number/.test(said), `the client said: ${said}`);
}

/* ---- begin ---- */

async function test(...options) {
  const t = await begin(...options), api = await (await fetch(t.s.url + '-json')).json(), file = `${t.s.rest}.json`;
  writeFileSync(path.join(folder, file), JSON.stringify(api));
  await run('validate-api', bin('validate-api'), file);
  if (t.token) await client(t, file);
  await answers(t, api);
  await end(t);
}

if (existsSync(MODULES)) {
  folder = mkdtempSync(path.join(MODULES, '..', 'client-'));
  try {
    const token = path.join(folder, 'token');
    writeFileSync(token, TOKEN + '\n', { mode: 0o600 });
    await Promise.all([test(), test('--token-file', token, '--webhook', 'http://127.0.0.1:1/')]);
  } catch (error) {
    check(false, error.stack);
  } finally {
    killAll();
    rmSync(folder, { recursive: true });
  }
} else {
  console.log(`test-openapi: there is no ${MODULES}; OPENAPI may name the folder with what the head of this file installs`);
  counts.skipped = 1;
}
finish();
