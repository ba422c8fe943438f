/* test-page - the page /docs in headless Chromium: a fleet server, devices that speak its protocol, and a person at a keyboard.
     npm install --no-save --prefix /tmp/pw playwright-core axe-core
     PLAYWRIGHT=/tmp/pw/node_modules/playwright-core/index.mjs node examples/fleet/test-page.mjs
     ... test-page.mjs NAME...                 only these tests, such as comesBack
     ... test-page.mjs --screenshot FILE       instead makes the README's picture (a palette makes it small)
   FLEET and CHROMIUM may name the programs. The last line counts; exit status 1 if anything failed. */

import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PATIENCE_MS, check, counts, finish, killAll, program, server, stop, until } from './testing.mjs';

const CHROMIUM = process.env.CHROMIUM || '/usr/bin/chromium';
const PLAYWRIGHT = process.env.PLAYWRIGHT || 'playwright-core';
const AXE = process.env.AXE || path.join(path.dirname(PLAYWRIGHT), '../axe-core/axe.min.js');
const MAX_TABS = 200, TOKEN = 'a-token-of-the-test-0123456789';

let browser;
const strays = [];                             /* what a page did that it must not */

/* ---- devices ---- */

/* Take the first whole JSON object of a text: [object, rest], or null. */
function object(text) {
  let depth = 0, quoted = false;
  for (let i = 0; i < text.length; i++) {
    if (quoted) { if (text[i] === '\\') i++; else if (text[i] === '"') quoted = false; }
    else if (text[i] === '"') quoted = true;
    else if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return [JSON.parse(text.slice(0, i + 1)), text.slice(i + 1)];
  }
  return null;
}

class Device {
  static async connect(port, id = randomUUID()) {
    const device = new Device();
    Object.assign(device, { id, socket: net.connect(port, '127.0.0.1'), replies: [], commands: [], answers: {} });
    let text = '';
    device.socket.on('error', () => {});
    device.socket.on('data', data => {
      text += data;
      for (let one; (one = object(text)) !== null; ) { text = one[1]; device.hear(one[0]); }
    });
    await device.say(`HELLO, I'M ${id}!`);
    return device;
  }
  hear({ type, message }) {
    if (type === 'reply') this.replies.push(message);
    if (type !== 'command') return;
    this.commands.push(message);
    if (this.answers[message]) this.send('reply', this.answers[message]);
  }
  send(type, message) { this.socket.write(JSON.stringify({ type, message, clientId: this.id })); }
  async say(message) {
    const before = this.replies.length;
    this.send('message', message);
    await until(() => this.replies.length > before, `a reply to ${message}`);
  }
  report(lat, lon, how = 'RESTING', charge = 80) { return this.say(`REPORT. I'M HERE ${lat} ${lon}, ${how} AND CHARGED AT ${charge}%.`); }
  leave() { this.socket.destroy(); }
}

/* ---- the page. What it must not do is noted: errors, violations of its policy, requests to elsewhere ---- */

async function open(url, { width = 1280, height = 900, colorScheme = 'light', prepare = () => {}, ready = true } = {}, pardoned = /^$/) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme }), origin = new URL(url).origin;
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('pageerror', error => strays.push(`error: ${error.message}`));
  page.on('console', message => { if (message.type() === 'error' && !pardoned.test(message.text())) strays.push(`console: ${message.text()}`); });
  page.on('request', request => { if (!request.url().startsWith(origin) && !request.url().startsWith('data:')) strays.push(`request: ${request.url()}`); });
  await page.addInitScript(() => addEventListener('securitypolicyviolation', event => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  await prepare(page);
  await page.goto(url);
  if (ready) await page.locator('#stream', { hasText: 'live' }).waitFor();
  await page.locator('details').first().waitFor();
  return page;
}

const row = (page, id) => page.locator(`tr[data-row='${id}']`);
const point = (page, id) => page.locator(`.point[data-id='${id}']`);
const endpoint = (page, name) => page.locator(`details[data-endpoint='${name}']`);
const has = (locator, text) => locator.filter({ hasText: text }).waitFor({ state: 'attached' });
const is = (locator, name) => until(async () => (await locator.getAttribute('class')).split(' ').includes(name), `${locator} is ${name}`);

/* Press Tab until the element that has the focus is the one. */
async function tabTo(page, selector) {
  for (let i = 0; i < MAX_TABS; i++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(wanted => document.activeElement.matches(wanted), selector)) return;
  }
  throw Error(`${MAX_TABS} Tabs don't lead to ${selector}`);
}

/* ---- tests ---- */

async function showsDevices({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url);
  await has(row(page, device.id), 'online');
  check(await point(page, device.id).isHidden(), 'a device without a position is not in the plot');
  await device.report(52.5, 13.4, 'RUNNING', 87);
  await has(row(page, device.id), /52\.5000, 13\.4000.*87 %.*yes/);
  await is(point(page, device.id), 'running');
  const before = await point(page, device.id).getAttribute('transform');
  await device.report(52.5004, 13.4003, 'RESTING', 86);
  await has(row(page, device.id), /52\.5004, 13\.4003.*86 %.*no/);
  await is(point(page, device.id), 'resting');
  check(await point(page, device.id).getAttribute('transform') !== before, 'a report of another position moves the point');
  await has(page.locator('#log'), /at 52\.5004, 13\.4003, charge 86 %, resting/);
  await point(page, device.id).hover();
  check(await page.locator('#name').textContent() === device.id, 'a point under the mouse says its id');
  device.leave();
  await has(row(page, device.id), 'offline');
  await is(point(page, device.id), 'offline');
  await is(row(page, device.id), 'offline');
  const grey = await page.evaluate(() => getComputedStyle(document.querySelector('.mark.offline path')).stroke);
  check(await point(page, device.id).locator('path').evaluate(path => getComputedStyle(path).stroke) === grey, 'the point of an offline device is grey');
  const later = await Device.connect(s.tcp);
  await has(row(page, later.id), 'online');
  await has(page.locator('#count'), /1 of \d+ online/);
  later.leave();
  await page.close();
}

async function commands({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url, {}, /status of 400/), turnOn = endpoint(page, 'POST /vehicles/{id}/turnOn');
  device.answers = { 'HEY YOU, RUN!': 'DONE!', 'KEEP ME POSTED EVERY 7 SECONDS.': 'SURE, I WILL!', 'HEY YOU, REST!': `I CAN'T, SORRY.` };
  await row(page, device.id).click();
  await turnOn.locator('summary').click();
  check(await turnOn.locator('input').inputValue() === device.id, `a click on a row fills its id in`);
  await turnOn.locator('.send').click();
  await has(turnOn.locator('.answer'), /200 OK in \d+ ms/);
  await has(turnOn.locator('.body'), /"reply": "DONE!",\s+"done": true/);
  check(device.commands.join() === 'HEY YOU, RUN!', `the device was told ${device.commands}`);

  const frequency = endpoint(page, 'POST /vehicles/{id}/frequency');
  await frequency.locator('summary').click();
  await frequency.locator(`input[name='seconds']`).fill('7');
  check((await frequency.locator('.curl').textContent()).includes(`-d '{"seconds":7}' '${s.url.slice(0, -5)}/vehicles/${device.id}/frequency'`), 'the curl line has what the fields have');
  await frequency.locator('.send').click();
  await has(frequency.locator('.body'), 'SURE, I WILL!');
  await has(row(page, device.id), '7 s');
  await frequency.locator(`input[name='seconds']`).fill('-1');
  await frequency.locator('.send').click();
  await has(frequency.locator('.answer'), /400 Bad Request.*seconds has to be/s);

  const either = endpoint(page, 'POST /vehicles/{id}/turnOnOrOff');
  await either.locator('summary').click();
  await either.locator('select').selectOption('false');
  await either.locator('.send').click();
  await has(either.locator('.body'), `I CAN'T, SORRY.`);
  check(device.commands.at(-1) === 'HEY YOU, REST!', 'a select sends a boolean');
  device.leave();
  await page.close();
}

/* While an answer is awaited, there is neither the one before nor a button that looks ready. */
async function waits({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url), turnOn = endpoint(page, 'POST /vehicles/{id}/turnOn'), send = turnOn.locator('.send');
  device.answers = { 'HEY YOU, RUN!': 'DONE!' };
  await row(page, device.id).click();
  await turnOn.locator('summary').click();
  const ready = await send.evaluate(button => getComputedStyle(button).backgroundColor);
  await send.click();
  await has(turnOn.locator('.body'), 'DONE!');
  device.answers = {};
  await send.click();
  await has(turnOn.locator('.answer'), 'Waiting for the answer');
  check(await turnOn.locator('.body').isHidden(), 'the answer before is not there');
  check(await send.getAttribute('aria-disabled') === 'true' && await send.textContent() === 'Waiting' && await send.evaluate(button => getComputedStyle(button).backgroundColor) !== ready, 'Send does not look ready');
  await send.click({ force: true });
  device.send('reply', 'DONE!');
  await turnOn.locator('.body').waitFor();
  check(await send.getAttribute('aria-disabled') === null && await send.textContent() === 'Send', 'then it is ready again');
  check(device.commands.length === 2, 'and while it was not, it sent nothing');
  device.leave();
  await page.close();
}

async function worksByKeyboard({ s }) {
  const ids = [randomUUID(), randomUUID()].sort(), devices = [];
  for (const id of ids) devices.push(await Device.connect(s.tcp, id));
  devices[1].answers = { 'HEY YOU, REST!': 'DONE!' };
  for (const device of devices) await device.report(52.5, 13.4);
  const page = await open(s.url);
  await row(page, ids[1]).waitFor();
  await page.keyboard.press('Tab');
  check(await page.evaluate(() => document.activeElement.getAttribute('href')) === '#endpoints', 'the first Tab leads to a skip link');
  await tabTo(page, '.point');
  check(await page.locator('#name').textContent() !== '', 'a point with the focus says its id');
  await tabTo(page, '.pick');
  await page.keyboard.press('Home');
  while (await page.evaluate(() => document.activeElement.dataset.id) !== ids[1]) await page.keyboard.press('ArrowDown');
  check(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle) === 'solid', 'the focus is visible');
  await page.keyboard.press('Enter');
  await is(row(page, ids[1]), 'selected');
  check(await page.locator(`.pick[data-id='${ids[1]}']`).getAttribute('aria-pressed') === 'true', 'a selected row says so');
  await tabTo(page, `details[data-endpoint$='/turnOff'] > summary`);
  await page.keyboard.press('Enter');
  await tabTo(page, `input[name='id']`);
  check(await page.evaluate(() => document.activeElement.value) === ids[1], 'Enter on a row fills its id in');
  await page.keyboard.press('Enter');
  await has(endpoint(page, 'POST /vehicles/{id}/turnOff').locator('.body'), 'DONE!');
  check(devices[1].commands.join() === 'HEY YOU, REST!' && !devices[0].commands.length, 'Enter in a form commands that device alone');
  for (const device of devices) device.leave();
  await page.close();
}

async function hasEveryEndpoint({ s }) {
  const page = await open(s.url), api = await (await fetch(s.url + '-json')).json();
  for (const [at, methods] of Object.entries(api.paths)) {
    for (const [method, op] of Object.entries(methods)) {
      const name = `${method.toUpperCase()} ${at}`, box = endpoint(page, name);
      check(await box.count() === 1 && await box.locator('form').count() === 1, `${name} has a form`);
      check(await box.locator('.send, form a').count() === 1, `${name} can be tried`);
      const { $ref } = op.requestBody?.content['application/json'].schema || {};
      const schema = $ref ? api.components.schemas[$ref.split('/').pop()] : { properties: {} };
      for (const field of [...(op.parameters || []).map(p => p.name), ...Object.keys(schema.properties)])
        check(await box.locator(`[name='${field}']`).count() === 1, `${name} has a field for ${field}`);
      for (const status of Object.keys(op.responses)) check((await box.locator('dt').allTextContents()).includes(status), `${name} tells of ${status}`);
    }
  }
  check(await page.locator('details').count() === Object.keys(api.paths).length, 'no endpoint is there twice');
  await page.evaluate(() => { for (const box of document.querySelectorAll('details')) box.open = true; });
  check(!/(?<!\/)vehicle/i.test(await page.locator('body').innerText()), 'people read of devices, and not of vehicles, but in paths');
  check(/200\s+The device has replied/.test(await endpoint(page, 'POST /vehicles/{id}/turnOn').innerText()), 'an answer is not described as a command');
  const unnamed = await page.evaluate(() => [...document.querySelectorAll('input, select')].filter(field => !field.labels.length).length);
  const doubled = await page.evaluate(() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id); return ids.length - new Set(ids).size; });
  check(unnamed === 0 && doubled === 0, `${unnamed} fields without a label, ${doubled} ids that are there twice`);
  await page.close();
}

async function isNarrow({ s }) {
  const device = await Device.connect(s.tcp);
  await device.report(-33.868812, -151.209312, 'RUNNING', 100);
  for (const width of [320, 360, 640, 768, 1024, 1280, 1920]) {
    const page = await open(s.url, { width, height: 740 });
    await row(page, device.id).click();
    await page.evaluate(() => { for (const box of document.querySelectorAll('details')) box.open = true; });
    await endpoint(page, 'GET /vehicles').locator('.send').click();
    await has(endpoint(page, 'GET /vehicles').locator('.body'), device.id);
    const [map, table, server] = await Promise.all(['#map', '#box', '.server'].map(selector => page.locator(selector).boundingBox()));
    check(map.y < 400 && table.y < server.y && await page.locator('.server').getByText('Version').isVisible(), `at ${width} pixels the devices come before version and token`);
    const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    check(wide <= 0, `at ${width} pixels the page is ${wide} too wide`);
    await page.close();
  }
  device.leave();
}

/* Of each text its contrast (WCAG 2 s.1.4.3) with the nearest ground: the least, and whose it is. */
function leastContrast() {
  const light = rgb => rgb.match(/[\d.]+/g).slice(0, 3).map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = element => { const c = getComputedStyle(element).backgroundColor; return c === 'rgba(0, 0, 0, 0)' ? ground(element.parentElement) : c; };
  let least = [21, ''];
  for (const element of document.querySelectorAll('body *')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()) || !element.checkVisibility() || element.closest('script, svg')) continue;
    const [low, high] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => a - b);
    if ((high + .05) / (low + .05) < least[0]) least = [(high + .05) / (low + .05), element.outerHTML.slice(0, 200)];
  }
  return least;
}

async function isLegible({ s }) {
  const devices = [await Device.connect(s.tcp), await Device.connect(s.tcp)];
  for (const device of devices) await device.report(52.5, 13.4, 'RUNNING', 5);
  devices[0].leave();
  for (const colorScheme of ['light', 'dark']) {
    const page = await open(s.url, { colorScheme });
    await has(row(page, devices[0].id), 'offline');
    await row(page, devices[1].id).click();
    await page.evaluate(() => { for (const box of document.querySelectorAll('details')) box.open = true; });
    const [least, whose] = await page.evaluate(leastContrast);
    check(least >= 4.5, `${colorScheme}: contrast ${least.toFixed(2)} of ${whose}`);
    await page.close();
  }
  devices[1].leave();
}

/* axe finds nothing: while it loads, live with everything open, while an answer is awaited, and with the server gone. */
async function isAccessible() {
  if (!existsSync(AXE)) return counts.skipped++, console.log(`test-page: there is no ${AXE}; AXE may name it`);
  for (const [colorScheme, width] of [['light', 1280], ['dark', 360]]) {
    const s = await server('--timeout', '30'), device = await Device.connect(s.tcp), other = await Device.connect(s.tcp);
    let go;
    const gate = new Promise(done => { go = done; }), prepare = page => page.route('**/vehicles?*', async route => { await gate; await route.continue(); });
    const page = await open(s.url, { colorScheme, width, prepare, ready: false }, GONE);
    await page.locator('details').first().waitFor();
    await page.evaluate(readFileSync(AXE, 'utf8'));
    const axe = async when => {
      const found = (await page.evaluate(() => axe.run(document, { resultTypes: ['violations'] }))).violations;
      check(!found.length, `${when}, ${colorScheme}, at ${width} pixels: ${found.map(one => `${one.id} (${one.help}): ${one.nodes.map(node => node.html.slice(0, 200)).join('; ')}`).join('\n')}`);
    };
    await axe('loading');
    go();
    await device.report(52.5, 13.4, 'RUNNING', 5);
    await row(page, device.id).waitFor();
    await row(page, device.id).click();
    await page.evaluate(() => { for (const box of document.querySelectorAll('details')) box.open = true; });
    const turnOn = endpoint(page, 'POST /vehicles/{id}/turnOn'), health = endpoint(page, 'GET /');
    await health.locator('.send').click();
    await health.locator('.body').waitFor();
    await turnOn.locator('.send').click();
    await has(turnOn.locator('.answer'), 'Waiting for the answer');
    other.leave();
    await has(row(page, other.id), 'offline');
    await axe('live');
    s.process.kill('SIGKILL');
    await s.over;
    await page.locator('#stream', { hasText: 'not connected' }).waitFor();
    await has(turnOn.locator('.answer'), 'No answer');
    await axe('with the server gone');
    await page.close();
  }
}

async function takesText({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url);
  const blob = `<img src=x onerror='document.title = 1'><b>hot</b>`;
  await device.say(`WTF! ${blob.length}\n${blob}`);
  await has(page.locator('#log'), `issue: ${blob}`);
  check(await page.locator('#log img, #log b').count() === 0 && await page.title() === 'Fleet', 'what a device says is text');
  device.leave();
  await page.close();
}

async function pauses({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url);
  await device.report(52.5, 13.4, 'RESTING', 50);
  await has(row(page, device.id), '50 %');
  await page.locator('#pause').click();
  await device.report(52.5, 13.4, 'RESTING', 49);
  await row(page, device.id).click();
  await is(row(page, device.id), 'selected');
  await page.evaluate(() => new Promise(done => setTimeout(done, 300)));
  check((await row(page, device.id).textContent()).includes('50 %'), 'Pause holds the table');
  await page.locator('#pause').click();
  await has(row(page, device.id), '49 %');
  device.leave();
  await page.close();
}

async function zooms() {
  const s = await server(), page = await open(s.url), devices = [await Device.connect(s.tcp), await Device.connect(s.tcp)];
  const apart = async () => {
    const [a, b] = await Promise.all(devices.map(device => point(page, device.id).locator('path').boundingBox()));
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  await devices[0].report(48.1, 11.5);
  await devices[1].report(48.11, 11.51);
  await until(async () => await page.locator('.point:not([hidden])').count() === 2 && await apart() > 100, 'two that are near fill the plot');
  await devices[1].report(-77.8, 166.7);
  await has(row(page, devices[1].id), '-77.8000, 166.7000');
  const plot = await page.locator('#plot').boundingBox();
  for (const device of devices) {
    const { x, y } = await point(page, device.id).locator('path').boundingBox();
    check(x > plot.x && x < plot.x + plot.width && y > plot.y && y < plot.y + plot.height, 'two that are far apart are both in the plot');
    device.leave();
  }
  await page.close();
  await stop(s);
}

const GONE = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|SOCKET_NOT_CONNECTED|INCOMPLETE_CHUNKED|EMPTY)/;      /* what Chromium says of that */

/* The colours of a row's text, of a point and of the line that tells whether the page is live. */
const colours = (page, id) => page.evaluate(id => {
  const style = selector => getComputedStyle(document.querySelector(selector));
  return { row: style(`tr[data-row='${id}'] td`).color, point: style(`.point[data-id='${id}'] path`).fill, stream: style('#stream').color, muted: style('footer').color, bad: style('#bad').color };
}, id);

/* Of all in the plot that is text or a device: texts that another thing touches. */
function covered() {
  const boxes = selector => [...document.querySelectorAll(selector)].filter(one => one.checkVisibility()).map(one => [one, one.getBoundingClientRect()]);
  const texts = boxes('#plot text'), all = [...texts, ...boxes('.point path')];
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return texts.flatMap(([text, box]) => all.filter(([other, its]) => other !== text && meet(box, its)).map(([other]) => `${text.textContent} and ${other.textContent || other.outerHTML}`));
}

/* Labels cover neither each other nor a device, wherever that is; and the name of one under the mouse is not on the plot. */
async function labels() {
  for (const reach of [.002, .05, 30]) {
    const s = await server();
    const devices = await Promise.all(Array.from({ length: 33 }, async (_, i) => {      /* along the four edges */
      const along = reach * (i % 8) / 8, [lat, lon] = [[0, 2 * along], [along, 2 * reach], [reach, 2 * along], [along, 0], [0, 2 * reach]][i >> 3];
      const device = await Device.connect(s.tcp);
      await device.report((-20 + lat).toFixed(6), (-150 + lon).toFixed(6));
      return device;
    }));
    for (const width of [360, 1280]) {
      const page = await open(s.url, { width });
      await until(async () => await page.locator('.point:not([hidden])').count() === 33, 'all are there');
      const found = await page.evaluate(covered), texts = await page.locator('#plot text').count();
      check(!found.length && texts > 3, `within ${reach} degrees, at ${width} pixels, ${texts} labels: ${found.join('; ')}`);
      await point(page, devices[0].id).hover({ force: true });
      await until(async () => await page.locator('#name').textContent() !== '', 'a name');
      const [name, plot] = [await page.locator('#name').boundingBox(), await page.locator('#plot').boundingBox()];
      check(name.y >= plot.y + plot.height, 'the name is below the plot');
      await page.close();
    }
    for (const device of devices) device.leave();
    await stop(s);
  }
}

async function comesBack() {
  const s = await server(), device = await Device.connect(s.tcp), page = await open(s.url, {}, GONE);
  await page.evaluate(() => { const bad = document.createElement('i'); bad.id = 'bad'; bad.className = 'bad'; document.body.append(bad); });
  await device.report(52.5, 13.4, 'RUNNING', 80);
  await is(point(page, device.id), 'running');
  const live = await colours(page, device.id);
  check(live.row !== live.muted && live.point !== live.muted && live.stream === live.muted, `what is live is not dim: ${JSON.stringify(live)}`);
  s.process.kill('SIGKILL');
  await s.over;
  await page.locator('#stream', { hasText: /not connected to the server since \d\d:\d\d:\d\d/i }).waitFor();
  const gone = await colours(page, device.id);
  check(gone.row === gone.muted && gone.point === gone.muted && gone.stream === gone.bad, `what was known is dim, and that is said in the colour of warnings: ${JSON.stringify(gone)}`);
  await has(page.locator('#count'), '1 of 1 were online');
  const again = await server('--rest-port', String(s.rest)), other = await Device.connect(again.tcp);
  await has(row(page, other.id), 'online');
  await row(page, device.id).waitFor({ state: 'detached' });
  await page.locator('#stream', { hasText: 'live' }).waitFor();
  check(!await page.evaluate(() => document.body.classList.contains('lost')), 'and then it is live again');
  device.leave();
  other.leave();
  await page.close();
  await stop(again);
}

/* A server that does not answer any more, but whose connections are still there. */
async function notices() {
  const s = await server(), page = await open(s.url);
  s.process.kill('SIGSTOP');
  await page.locator('#stream', { hasText: 'not connected' }).waitFor();
  s.process.kill('SIGCONT');
  await page.locator('#stream', { hasText: 'live' }).waitFor();
  await page.close();
  await stop(s);
}

async function tellsOfRedis({ s }) {
  const page = await open(s.url, { prepare: page => page.route(s.url.slice(0, -4), async route => route.fulfill({ json: { ...await (await route.fetch()).json(), redis: 'away' } })) });
  await has(page.locator('#stream.bad'), 'Live, but Redis is down');
  await page.unrouteAll({ behavior: 'ignoreErrors' });      /* a request may be on its way */
  await page.close();
}

/* Where /events has subscribers enough, the list is shown, and not as if it were live. */
async function readsWithoutEvents({ s }) {
  const device = await Device.connect(s.tcp), page = await open(s.url, { ready: false, prepare: page => page.route('**/events', route => route.fulfill({ status: 503 })) }, /status of 503/);
  await has(row(page, device.id), 'online');
  await page.locator('.lost #stream', { hasText: 'not connected' }).waitFor();
  device.leave();
  await page.close();
}

async function loads() {
  let go;
  const gate = new Promise(done => { go = done; }), s = await server();
  const page = await open(s.url, { ready: false, prepare: page => page.route('**/vehicles?*', async route => { await gate; await route.continue(); }) });
  await page.locator('#count', { hasText: '0 of 0 online' }).waitFor();
  check(await page.locator('#empty').textContent() === 'Loading the devices.' && await page.locator('#stream').textContent() === 'Connecting', 'before the devices are there, the page does not say that there is none');
  go();
  await page.locator('#empty', { hasText: 'No device is known yet' }).waitFor();
  check(await page.locator('#grid > *').count() === 0, 'where no device has a position, there is no map of nothing');
  await page.close();
  await stop(s);
}

/* Whatever /events says, the log goes on, and the table shows what is understood. */
async function survives({ s }) {
  const page = await open(s.url, { prepare: page => page.addInitScript(() => {
    const Stream = EventSource;
    window.EventSource = function (url) { return window.stream = new Stream(url); };
    window.EventSource.CLOSED = Stream.CLOSED;
  }) });
  const tell = data => page.evaluate(data => stream.dispatchEvent(new MessageEvent('change', { data })), typeof data === 'string' ? data : JSON.stringify(data));
  const id = 'odd', vehicle = { id, connected: true, instance: null, position: { lat: 1, lon: 2 }, charge: 3, running: true, reportEvery: 4, issues: 0, lastSeen: '2026-11-21T09:30:00.123456Z' };
  const odd = [undefined, null, 5, 'text', {}, { toString: 1 }, [], true, -1e308];
  for (const text of ['', '{', 'null', '5', '[]', '""', '{}']) await tell(text);
  for (const one of odd) {
    await tell({ id: 1, at: one, changes: one, vehicle, blob: one });
    await tell({ changes: ['blob', 'position', 'charge', 'frequency', one, 'constructor'], vehicle, blob: one });
    await tell({ changes: ['online', 'position', 'charge', 'running', 'frequency'], vehicle: one });
    for (const name of Object.keys(vehicle)) await tell({ changes: ['online', 'position', 'charge', 'running', 'frequency'], vehicle: { ...vehicle, [name]: one } });
  }
  await tell({ at: vehicle.lastSeen, changes: ['blob'], vehicle, blob: { heat: 130 } });
  await has(page.locator('#log'), 'issue: {"heat":130}');
  await tell({ at: vehicle.lastSeen, changes: ['blob'], vehicle, blob: 42 });
  await has(page.locator('#log'), 'issue: 42');
  await has(row(page, id), /1\.0000, 2\.0000.*3 %.*yes.*4 s/);
  await page.close();
}

/* Search, filter and sort, over all devices and not only those in the table. */
async function finds(page, s) {
  const rows = page.locator('#rows tr'), last = (await (await fetch(`${s.url.slice(0, -5)}/vehicles?limit=500`)).json()).next.match(/after=([^&]+)/)[1];
  const beyond = (await (await fetch(`${s.url.slice(0, -5)}/vehicles?limit=500&after=${last}`)).json()).vehicles.at(-1).id;
  await page.locator('#search').fill(beyond.slice(0, 18).toUpperCase());
  await until(async () => await rows.count() === 1 && await point(page, beyond).isVisible(), 'a search finds what is beyond the table');
  await has(page.locator('#shown'), '1 of 600 devices');
  await page.locator('#search').fill('zzz');
  await has(page.locator('#empty'), 'No device fits.');
  await page.locator('#search').fill('');
  const gone = await Device.connect(s.tcp), low = await Device.connect(s.tcp);
  await low.report(52.5, 13.4, 'RESTING', 0);
  gone.leave();
  await page.locator('#filter').selectOption('offline');
  await until(async () => await rows.count() === 1 && await row(page, gone.id).isVisible(), 'the filter shows who is offline');
  await page.locator('#filter').selectOption('charge under 15 %');
  await row(page, low.id).waitFor();
  check(await rows.count() === await page.locator('#rows tr:has(.charge.bad)').count(), 'the filter shows who has little charge');
  await page.locator('#filter').selectOption('all devices');
  await page.locator('#sort').selectOption('charge, lowest first');
  await until(() => page.evaluate(id => document.querySelector('#rows tr').dataset.row === id, low.id), 'the order puts the lowest charge first');
  const charges = await page.evaluate(() => [...document.querySelectorAll('#rows .num.charge')].map(cell => parseInt(cell.textContent)));
  check(charges.length === 500 && charges.every((charge, i) => !i || charges[i - 1] <= charge), 'rows are in the order of their charge');
  await page.locator('#sort').selectOption('last seen, longest ago first');
  await until(() => page.evaluate(() => {
    const seen = [...document.querySelectorAll('#rows td:nth-child(6)')].map(cell => cell.title);
    return seen.length === 500 && seen[0] < seen[499] && seen.every((time, i) => !i || seen[i - 1] <= time);
  }), 'the order puts first who was not seen for longest');
  await page.locator('#sort').selectOption('ID');
  low.leave();
}

/* More devices than the page reads: it says so, and reads no more. */
async function readsAtMost() {
  const s = await server(), known = 12345;
  let pages = 0;
  const vehicle = (i) => ({ id: `${i}`.padStart(8, '0') + randomUUID().slice(8), connected: true, instance: null, position: null, charge: null, running: null, reportEvery: null, issues: 0, lastSeen: null });
  const page = await open(s.url, { prepare: async page => {
    await page.route(s.url.slice(0, -4), async route => route.fulfill({ json: { ...await (await route.fetch()).json(), devices: { online: known, known } } }));
    await page.route('**/vehicles?*', route => route.fulfill({ json: { total: known, vehicles: Array.from({ length: 500 }, (_, i) => vehicle(500 * pages + i)), next: `/vehicles?after=${++pages}` } }));
  } });
  await has(page.locator('#shown'), 'The map and the table show 500 of 10,000 devices, by ID.');
  await has(page.locator('#shown'), 'This page reads 10,000 devices at most. GET /vehicles has all 12,345.');
  check(pages === 20, `${pages} pages were read`);
  await page.unrouteAll({ behavior: 'ignoreErrors' });
  await page.close();
  await stop(s);
}

async function showsMany() {
  const s = await server(), many = program(['device', '--count', '600', '--report-every', '1', '--quiet', '127.0.0.1', String(s.tcp)]);
  const page = await open(s.url);
  await has(page.locator('#count'), '600 of 600 online');
  await until(async () => await page.locator('#rows tr').count() === 500, '500 rows');
  await has(page.locator('#shown'), 'The map and the table show 500 of 600 devices, by ID.');
  const [note, map] = [await page.locator('#shown').boundingBox(), await page.locator('#map').boundingBox()];
  check(map.y - note.y - note.height < 20, 'that is said beside the map');
  const ids = await page.locator('.pick').allTextContents();
  check(ids.every((id, i) => !i || ids[i - 1] < id), 'rows are in the order of their ids');
  check(await page.locator(`#rows [tabindex='0']`).count() === 1, 'the table is one tab stop');
  await finds(page, s);
  await page.close();
  await stop(many);
  await stop(s);
}

async function wantsToken() {
  const folder = mkdtempSync(path.join(tmpdir(), 'fleet-')), file = path.join(folder, 'token');
  writeFileSync(file, TOKEN + '\n', { mode: 0o600 });
  const s = await server('--token-file', file), device = await Device.connect(s.tcp);
  device.answers = { 'HEY YOU, RUN!': 'DONE!' };
  const page = await open(s.url, {}, /status of 401/), turnOn = endpoint(page, 'POST /vehicles/{id}/turnOn');
  const send = async () => {
    await row(page, device.id).click();
    await turnOn.locator('summary').click();
    await turnOn.locator('.send').click();
  };
  await has(turnOn.locator('summary'), 'token');
  await send();
  await has(turnOn.locator('.answer'), /401 Unauthorized.*give the bearer token above the endpoints/s);
  check(device.commands.length === 0, 'without the token nothing reaches the device');
  await page.locator('#token').fill(TOKEN);
  check((await turnOn.locator('.curl').textContent()).includes(`-H 'authorization: Bearer '$TOKEN`) && !(await turnOn.textContent()).includes(TOKEN), 'the curl line names the token, and does not show it');
  await page.reload();
  await send();
  await has(turnOn.locator('.body'), 'DONE!');
  check(device.commands.length === 1, 'with the token it does');
  device.leave();
  await page.close();
  await stop(s);
  rmSync(folder, { recursive: true });
}

const TESTS = [showsDevices, commands, waits, worksByKeyboard, hasEveryEndpoint, isNarrow, isLegible, isAccessible, takesText, pauses, zooms, labels, comesBack, notices, tellsOfRedis, readsWithoutEvents, loads, survives, showsMany, readsAtMost, wantsToken];

async function test() {
  const s = await server();
  for (const one of TESTS.filter(one => process.argv.length < 3 || process.argv.includes(one.name))) {
    strays.length = 0;
    try {
      await one({ s });
      check(!strays.length, `${one.name}: ${strays.join('\n')}`);
    } catch (error) {
      check(false, `${one.name}: ${error.message}${strays.length ? '\n' + strays.join('\n') : ''}`);
    }
  }
  await stop(s);
}

/* ---- the picture ---- */

async function screenshot(file) {
  const s = await server(), simulate = (count, seed) => program(['device', '--count', count, '--seed', seed, '--report-every', '1', '--quiet', '127.0.0.1', String(s.tcp)]);
  const gone = simulate('4', '5'), there = simulate('16', '2');
  const page = await open(s.url, { width: 1280, height: 1600 }), turnOn = endpoint(page, 'POST /vehicles/{id}/turnOn');
  await has(page.locator('#count'), '20 of 20 online');
  await until(async () => await page.locator('.point:not([hidden])').count() === 20, 'all 20 have reported');
  await stop(gone);
  await has(page.locator('#count'), '16 of 20 online');
  await page.locator('tr.resting:not(:has(.bad))').first().click();
  await turnOn.locator('summary').click();
  await turnOn.locator('.send').click();
  await turnOn.locator('.body').waitFor();
  await until(async () => await page.locator('#log li').count() === 20, 'a full log');
  await page.evaluate(() => document.activeElement.blur());
  const { y, height } = await turnOn.boundingBox();
  await page.screenshot({ path: file, clip: { x: 0, y: 0, width: 1280, height: y + height } });
  await stop(there);
  await stop(s);
}

/* ---- begin ---- */

async function main() {
  const picture = process.argv[2] === '--screenshot' ? process.argv[3] : null;
  const playwright = await import(PLAYWRIGHT).catch(() => null);
  if (!playwright || !existsSync(CHROMIUM)) {
    console.log(`test-page: needs ${playwright ? CHROMIUM : 'playwright-core; PLAYWRIGHT may name its index.mjs'}`);
    counts.skipped = TESTS.length;
    return;
  }
  browser = await playwright.chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  try {
    await (picture ? screenshot(picture) : test());
  } finally {
    killAll();
    await browser.close();
  }
}

await main();
finish();
