/* other-site - a page of another site in headless Chromium tries server, codes and fleet on its
   visitor's machine: they refuse what it sends, and let the person's own use of them pass.
     PLAYWRIGHT=/tmp/pw/node_modules/playwright-core/index.mjs node .ci/other-site.mjs
   Needs the programs, built, in the folder that it is run in. The last line counts. */

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';

const PATIENCE_MS = 20000, CHROMIUM = process.env.CHROMIUM || '/usr/bin/chromium';
const { chromium } = await import(process.env.PLAYWRIGHT || 'playwright-core');
const folder = mkdtempSync(path.join(tmpdir(), 'other-site-')), running = [];
let passed = 0, failed = 0;

function check(got, want, what) {
  if (JSON.stringify(got) === JSON.stringify(want)) passed++;
  else failed++, console.log(`other-site: ${what}: got ${JSON.stringify(got)}`);
}

/* Start a program; the ports that it says it listens on, in their order. */
function start(ports, file, ...args) {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  running.push(child);
  return new Promise((done, broken) => {
    child.on('exit', status => broken(Error(`${file} ends with ${status}: ${said}`)));
    child.stdout.on('data', data => {
      said += data;
      const found = [...said.matchAll(/ on (?:http:\/\/)?127\.0\.0\.1:(\d+)/g)].map(m => m[1]);
      if (found.length === ports) done(found);
    });
  });
}

/* The statuses of all answers that a port gives while a page does this; also of those that their
   Cross-Origin-Resource-Policy keeps from the page, of which only the protocol of the tools tells. */
async function statuses(page, port, wanted, action, ...args) {
  const seen = [], listen = r => { if (new URL(r.url()).port === port) seen.push(r.status()); };
  const tools = await page.context().newCDPSession(page), status = new Map(), kept = [];
  const all = () => seen.concat(kept.map(id => status.get(id)));
  await tools.send('Network.enable');
  tools.on('Network.responseReceivedExtraInfo', r => status.set(r.requestId, r.statusCode));
  tools.on('Network.loadingFailed', r => { if (r.blockedReason?.startsWith('corp')) kept.push(r.requestId); });
  page.on('response', listen);
  await page.evaluate(action, args);
  for (const until = Date.now() + PATIENCE_MS; all().filter(Boolean).length < wanted && Date.now() < until; )
    await page.waitForTimeout(20);      /* the tools' events come by another way */
  page.off('response', listen);
  await tools.detach();
  return all();
}

/* In the page: what it can send without a preflight, and one with. Playwright tells of the three
   answers that the page may have, though not see; and of none that CORS keeps from it. */
async function sendAll([url, body]) {
  const plain = { method: 'POST', mode: 'no-cors', body };
  await fetch(url, plain).catch(() => {});      /* fleet's Cross-Origin-Resource-Policy keeps even this from the page */
  await fetch(url, { ...plain, referrerPolicy: 'no-referrer', credentials: 'omit' }).catch(() => {});
  await fetch(url, { method: 'POST', body }).catch(() => {});
  await fetch(url, { method: 'POST', body, headers: { 'X-Y': 'z' } }).catch(() => {});
  const form = document.createElement('form'), frame = document.createElement('iframe');
  frame.name = form.target = 'hidden';
  Object.assign(form, { method: 'POST', action: url, enctype: 'text/plain' });
  document.body.append(frame, form);
  await new Promise(done => { frame.onload = done; form.submit(); });
  frame.remove();
}

/* In the page: what it can read, or open. */
async function readAll([url]) {
  await fetch(url, { mode: 'no-cors' }).catch(() => {});
  const frame = document.createElement('iframe');
  await new Promise(done => { frame.onload = done; frame.src = url; document.body.append(frame); });
}

async function test(browser, site, server, uuids, fleet) {
  const page = await browser.newPage(), id = '7f9c24e8-3b13-4fef-b5a1-0c2d7b6f1e11';
  const code = `{"uuid": "${id}"}`, own = 'http://127.0.0.1:';
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(own + site);
  for (const [port, target, body] of [[server, '/', 'ask_key=me'], [uuids, '/', code],
                                      [fleet, `/vehicles/${id}/turnOn`, '{}']]) {
    for (const host of ['127.0.0.1', 'localhost']) {
      const url = `http://${host}:${port}${target}`;
      const got = await statuses(page, port, 3, sendAll, url, body);
      check(got, [403, 403, 403], `another site's POST to ${url}`);
    }
  }
  const read = await statuses(page, fleet, 2, readAll, `${own}${fleet}/vehicles`);
  check(read, [403, 403], `another site's GET`);

  for (const [port, target, body] of [[server, '/', 'ask_key=me'], [uuids, '/', code],
                                      [fleet, '/vehicles']]) {
    const ask = ([url, options]) => fetch(url, options).then(r => r.status);
    const asked = [target, { method: body ? 'POST' : 'GET', body }];
    await page.goto(`http://evil.example:${port}/`);      /* its address is 127.0.0.1: rebinding */
    check(await page.evaluate(ask, asked), 403, `DNS rebinding to ${port}`);
    await page.goto(`${own}${port}/`);
    check(await page.evaluate(ask, asked), 200, `a page of ${port}'s own: there is room for one`);
  }

  await page.goto(own + site);
  await page.setContent(`<a href='${own}${fleet}/docs'>the fleet</a>`);
  await page.click('a');
  await page.locator('#stream', { hasText: 'live' }).waitFor();
  check(await page.title(), 'Fleet', 'a link from another site, and what the page reads');
  const answer = await fetch(`${own}${uuids}/`, { method: 'POST', body: code });
  check(answer.status, 200, `Node's fetch is no browser`);
}

try {
  const site = http.createServer((request, answer) => answer.end('the other site'));
  await new Promise(done => site.listen(0, '127.0.0.1', done));
  const [server] = await start(1, './server', '--ip', '127.0.0.1', '--port', '0',
                               '--max-keys', '1');
  const [uuids] = await start(2, 'examples/codes/codes', 'server', '--uuid-port', '0', '--text-port', '0',
                              '--max-codes', '1', '--log', path.join(folder, 'log'));
  const [, fleet] = await start(2, 'examples/fleet/fleet', 'server',
                                '--tcp-port', '0', '--rest-port', '0');
  const args = ['--no-sandbox', '--host-resolver-rules=MAP evil.example 127.0.0.1'];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  await test(browser, `${site.address().port}`, server, uuids, fleet)
    .finally(() => browser.close());
} catch (error) {
  failed++;
  console.log(`other-site: ${error.stack}`);
} finally {
  for (const child of running) child.removeAllListeners('exit').kill();
  rmSync(folder, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
