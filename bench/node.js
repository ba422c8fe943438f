// The exam's own solution in plain Node: HTTP in a worker thread, the keys in a Map of the parent, a message each way
// for each request. No packages, nothing tuned.
//   node bench/node.js PORT
'use strict';
const { Worker, isMainThread, parentPort } = require('worker_threads');
const crypto = require('crypto');
const http = require('http');

const IP = '127.0.0.2';

function parent() {
    const keys = new Map();
    const worker = new Worker(__filename);

    function answer(body) {
        const at = body.indexOf('=');
        const field = body.slice(0, at), value = body.slice(at + 1);
        if (field === 'ask_key' && value !== '') {
            const key = crypto.randomBytes(64).toString('base64');
            keys.set(key, value);
            return { status: 200, text: key };
        }
        if (field === 'login') {
            const id = keys.get(value);
            return id === undefined ? { status: 403, text: 'wrong_key' } : { status: 200, text: id };
        }
        return { status: 400, text: 'wrong_query' };
    }

    worker.on('message', ({ number, body }) => worker.postMessage({ number, ...answer(body) }));
    worker.postMessage({ ip: IP, port: Number(process.argv[2]) });      // told its address once it runs
}

function child() {
    const waiting = new Map();
    let count = 0;

    function reply(response, status, text) {
        response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(text) });
        response.end(text);
    }

    const server = http.createServer((request, response) => {
        if (request.method !== 'POST') return reply(response, 405, 'wrong_query');
        let body = '';
        request.setEncoding('utf8');
        request.on('data', (text) => { body += text; });
        request.on('end', () => {
            const number = count++;
            waiting.set(number, response);
            parentPort.postMessage({ number, body });
        });
    });

    parentPort.once('message', ({ ip, port }) => {
        server.listen(port, ip);
        parentPort.on('message', ({ number, status, text }) => {
            const response = waiting.get(number);
            waiting.delete(number);
            reply(response, status, text);
        });
    });
}

if (isMainThread) parent();
else child();
