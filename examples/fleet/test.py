#!/usr/bin/env python3
"""Tests of the fleet, from outside: programs are started, sockets opened.

    cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c
    examples/fleet/test.py [TOPIC...]        default all; --list names them

FLEET=... tests another program. Prints a line for what fails, FILE:LINE: why, what came and what should have; and last how
many checks passed, failed and were skipped. Exit status: 0 all passed or were skipped, 1 not.

Everything is on loopback, at ports that the system chooses, and what was started is ended by its process id."""

import base64
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
FLEET = os.environ.get("FLEET", os.path.join(HERE, "fleet"))
DEADLINE = float(os.environ.get("DEADLINE", "30"))      # seconds for what has to come; longer under sanitizers or valgrind

passed = failed = skipped = 0
topics = {}
started = []                        # processes and sockets, to be ended after each topic
folder = None                       # of this topic, empty at its start


# ---- checks ----

def topic(function):
    topics[function.__name__] = function
    return function


def place():
    """Where in a topic we are."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_code.co_name not in topics:
        frame = frame.f_back
    return "%s:%d" % (os.path.relpath(__file__), frame.f_lineno)


def check(got, want, why):
    global passed, failed
    if got == want:
        passed += 1
        return True
    failed += 1
    print("%s: %s: got %s, want %s" % (place(), why[:200], repr(got)[:400], repr(want)[:400]), flush=True)
    return False


def check_that(condition, why):
    return check(bool(condition), True, why)


def skip(why):
    global skipped
    skipped += 1
    print("%s: skipped: %s" % (place(), why), flush=True)


class Gone(Exception):
    """What was waited for has not come: the rest of the topic makes no sense. It counts as failed."""


def wait_for(condition, seconds=None):
    """Call condition until it gives something true, and return that; after so long, what it gave last."""
    until = time.monotonic() + (seconds or DEADLINE)
    while True:
        value = condition()
        if value or time.monotonic() > until:
            return value
        time.sleep(0.02)


# ---- what is started, and ended ----

def spawn(args, **more):
    process = subprocess.Popen(args, stdin=subprocess.DEVNULL, **more)
    started.append(process)
    return process


def end(process):
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def end_all():
    while started:
        one = started.pop()
        if isinstance(one, subprocess.Popen):
            end(one)
        else:
            one.close()


def run(*args, seconds=None, **more):
    """Run fleet to its end: (exit status, stdout, stderr); None: it has none."""
    try:
        done = subprocess.run([FLEET, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds or DEADLINE, **more)
    except subprocess.TimeoutExpired as running:
        return None, str(running.stdout), str(running.stderr)
    return done.returncode, done.stdout, done.stderr


class Fleet:
    """A fleet server: .tcp, .rest (ports), .id (instance), .pid, .errors() (its stderr so far)."""

    def __init__(self, *args, **more):
        self.stderr = tempfile.TemporaryFile()
        ports = [] if "--tcp-port" in args else ["--tcp-port", "0"]
        ports += [] if "--rest-port" in args else ["--rest-port", "0"]
        self.process = spawn([FLEET, "server", *ports, *args], stdout=subprocess.PIPE, stderr=self.stderr, **more)
        self.pid = self.process.pid
        started.append(self)
        said = "".join(self.process.stdout.readline().decode() for _ in range(3))
        found = re.fullmatch(r"instance (\S+)\ndevices on [\d.]+:(\d+)\npeople on http://[\d.]+:(\d+)/docs\n", said)
        if not found:
            raise Gone("fleet server %s: %r %r" % (" ".join(args), said, self.errors()))
        self.id, self.tcp, self.rest = found[1], int(found[2]), int(found[3])

    def errors(self):
        return os.pread(self.stderr.fileno(), 1000000, 0).decode()      # its own place in the file is the program's, too

    def close(self):
        """At the end of a topic. A sanitizer's findings show in the exit status."""
        if self.process.poll() is None:
            check((self.stop(), self.errors()[-400:]), (0, self.errors()[-400:]), "the exit status of fleet server")
        self.stderr.close()

    def stop(self, number=signal.SIGTERM):
        """Its exit status; None: it does not end."""
        self.process.send_signal(number)
        try:
            return self.process.wait(2 * DEADLINE)
        except subprocess.TimeoutExpired:
            return None


def start(*args, **more):
    return Fleet(*args, **more)


# ---- who uses it ----

class Device:
    """A connection of a device. What the server says first has been read: .server is its id."""

    def __init__(self, fleet, id=None, hello=False):
        self.id = id or str(uuid.uuid4())
        self.socket = socket.create_connection(("127.0.0.1", fleet.tcp if isinstance(fleet, Fleet) else fleet), DEADLINE)
        started.append(self.socket)
        self.text = ""
        first = self.read()
        if not first or first.get("type") != "connected":
            raise Gone("a device is greeted by %r" % (first,))
        self.server = first.get("serverId")
        self.first = first
        if hello:
            self.ask("HELLO, I'M %s!" % self.id)

    def read(self, seconds=None):
        """The next object; None: the connection has ended; False: neither comes."""
        until = time.monotonic() + (seconds or DEADLINE)
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.text.lstrip())
                self.text = self.text.lstrip()[end:]
                return value
            except ValueError:
                pass
            left = until - time.monotonic()
            if left <= 0:
                return False
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                return False
            except OSError:
                return None
            if not more:
                return None
            self.text += more.decode()

    def raw(self, data):
        self.socket.settimeout(DEADLINE)
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def send(self, message, type="message", id=None):
        self.raw(json.dumps({"type": type, "message": message, "clientId": id or self.id, "serverId": self.server}))

    def reply(self, message):
        self.send(message, "reply")

    def ask(self, message):
        """Send it, and return what the server replies."""
        self.send(message)
        return self.said("reply")

    def said(self, type, seconds=None):
        """The message of the next object, which has to be of this type."""
        value = self.read(seconds)
        return value.get("message") if value and value.get("type") == type else value

    def command(self, seconds=None):
        return self.said("command", seconds)

    def ended(self, seconds=None):
        """Does the server end the connection, having said nothing more?"""
        return self.read(seconds) is None

    def displaced(self, seconds=None):
        """Does the server end the connection, having told why?"""
        return self.said("displaced", seconds) in (DISPLACED, RIVALS) and self.ended(seconds)

    def close(self):
        self.socket.close()


def http(fleet, method, path, body=None, headers=(), seconds=None):
    """(status, what the body holds: parsed if it is JSON, else text)."""
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: 127.0.0.1", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", "Content-Length: %d" % len(text)]
    lines += ["%s: %s" % pair for pair in dict(headers).items()]
    with socket.create_connection(("127.0.0.1", fleet.rest if isinstance(fleet, Fleet) else fleet), DEADLINE) as s:
        s.settimeout(seconds or DEADLINE)
        s.sendall("\r\n".join(lines + ["", ""]).encode() + text)
        answer = b""
        while True:
            more = s.recv(65536)
            if not more:
                break
            answer += more
    head, _, rest = answer.partition(b"\r\n\r\n")
    try:
        value = json.loads(rest)
    except ValueError:
        value = rest.decode("utf-8", "replace")
    return int(head.split()[1]) if head else 0, value


def pipelined(fleet, requests):
    """Requests on one connection, (method, path, body), so that the server has them in this order; a function that reads all answers."""
    person = socket.create_connection(("127.0.0.1", fleet.rest), DEADLINE)
    started.append(person)
    for method, path, body in requests:
        text = b"" if body is None else json.dumps(body).encode()
        person.sendall(b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (method.encode(), path.encode(), len(text), text))

    def answers():
        data, found = b"", []
        while len(found) < len(requests):
            head, end, rest = data.partition(b"\r\n\r\n")
            n = int(re.search(rb"Content-Length: (\d+)", head)[1]) if end else 0
            if not end or len(rest) < n:
                more = person.recv(65536)
                if not more:
                    break
                data += more
                continue
            found.append((int(head.split()[1]), json.loads(rest[:n])))
            data = rest[n:]
        return found

    return answers


class Call(threading.Thread):
    """An http() that somebody waits for meanwhile: .answer() is what it gave."""

    def __init__(self, *args, **more):
        super().__init__(daemon=True)
        self.args, self.more, self.result, self.took = args, more, None, None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            self.result = http(*self.args, **self.more)
        except OSError as error:
            self.result = (0, str(error))
        self.took = time.monotonic() - began

    def answer(self):
        self.join(2 * DEADLINE)
        return self.result


def vehicle(fleet, id):
    """What the fleet knows of a device; None: nothing."""
    status, value = http(fleet, "GET", "/vehicles/%s" % id)
    return value if status == 200 else None


# ---- the REST API ----

DISPLACED, RIVALS = "ANOTHER CONNECTION HAS YOUR ID NOW.", "TOO MANY CONNECTIONS HAVE YOUR ID. TRY AGAIN LATER."
UNKNOWN = "00000000-0000-4000-8000-000000000000"
ID = "/vehicles/{id}"
API = {                             # of the issue: what there is, and what of it commands a device
    "/": "get", "/health": "get", "/docs": "get", "/docs-json": "get", "/events": "get", "/vehicles": "get", ID: "get", ID + "/status": "get",
    ID + "/fetch-info": "get",
    ID + "/frequency": "post", ID + "/turnOn": "post", ID + "/turnOff": "post", ID + "/turnOnOrOff": "post", ID + "/disconnect": "post", ID + "/command": "post",
}
COMMANDS = [path for path, method in API.items() if method == "post"] + [ID + "/fetch-info"]
BODIES = {"frequency": {"seconds": 60}, "turnOnOrOff": {"running": True}, "command": {"message": "SING!"}}


def ask(fleet, method, target, fields=(), body=b"", ip="127.0.0.1", version="1.1"):
    """A request with exactly these fields, a list of pairs, and its answer: (status, fields, body)."""
    lines = ["%s %s HTTP/%s" % (method, target, version)] + ["%s: %s" % pair for pair in fields]
    lines += ["Connection: close"] + ["Content-Length: %d" % len(body)] * bool(body)
    with socket.create_connection((ip, fleet.rest), DEADLINE) as s:
        s.settimeout(DEADLINE)
        s.sendall("\r\n".join(lines + ["", ""]).encode() + body)
        head, _, rest = b"".join(iter(lambda: s.recv(65536), b"")).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, rest.decode()


def document(fleet):
    return http(fleet, "GET", "/docs-json")[1]


def at(doc, schema):
    """What a $ref is about."""
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if schema["$ref"] != "#/components/schemas/" + name or set(schema) - {"$ref", "description"}:
            raise Gone("%r is no reference to a schema" % schema)
        schema = doc["components"]["schemas"][name]
    return schema


def members(doc, schema):
    """(properties, required) of a schema, with those of allOf."""
    schema = at(doc, schema)
    properties, required = dict(schema.get("properties", {})), list(schema.get("required", []))
    for part in schema.get("allOf", []):
        more, needed = members(doc, part)
        properties.update(more)
        required += needed
    return properties, required


def faults(doc, schema, value, where="it"):
    """What is wrong with a value of that schema, of as much of OpenAPI as the document uses."""
    nullable = "anyOf" in schema
    if nullable:
        if schema["anyOf"][0] != {"type": "null"} or len(schema["anyOf"]) != 2:
            raise Gone("%r is not null or a schema" % schema)
        schema = schema["anyOf"][1]
    schema = at(doc, schema)
    kind = schema.get("type")
    if isinstance(kind, list):
        nullable, kind = kind[0] == "null" and len(kind) == 2, kind[-1]
    if value is None:
        return [] if nullable else [where + " is null"]
    properties, required = members(doc, schema)
    if properties:
        if not isinstance(value, dict):
            return [where + " is no object"]
        found = ["%s has no %s" % (where, name) for name in required if name not in value]
        found += ["%s has %s, too" % (where, name) for name in value if name not in properties]
        return found + [fault for name in value if name in properties for fault in faults(doc, properties[name], value[name], where + "." + name)]
    right = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}[kind]
    if not isinstance(value, right) or (isinstance(value, bool) and kind != "boolean"):
        return ["%s is no %s: %r" % (where, kind, value)]
    if kind == "array":
        return [fault for one in value for fault in faults(doc, schema["items"], one, where + "[]")]
    found = []
    if kind in ("integer", "number") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append("%s is out of its range: %r" % (where, value))
    if kind == "string" and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        found.append("%s is too long or short: %r" % (where, value))
    if value not in schema.get("enum", [value]):
        found.append("%s is none of its words: %r" % (where, value))
    form = {"uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"}.get(schema.get("format"))
    if form and not re.fullmatch(form, value):
        found.append("%s is no %s: %r" % (where, schema["format"], value))
    return found


def as_documented(doc, method, target, status, value, why):
    """Is an answer one that the document tells of?"""
    pattern = re.sub(r"/vehicles/[^/?]+", ID, target.split("?")[0].rstrip("/")) or "/"
    operation = doc["paths"].get(pattern, {}).get({"HEAD": "get"}.get(method, method.lower()))
    if not operation or status == 405:
        return check(status in (400, 404, 405), True, "%s: not in the document, and answered by %d" % (why, status))
    response = operation["responses"].get(str(status))
    if not check_that(response, "%s: %s %s says nothing of %d" % (why, method, pattern, status)):
        return False
    return check(faults(doc, list(response["content"].values())[0]["schema"], value), [], "%s: the answer to %s %s is as documented" % (why, method, pattern))


def obey(fleet, device, path, body, command, reply):
    """Command a device, which replies; the answer."""
    call = Call(fleet, API[path].upper(), path.replace("{id}", device.id), body)
    check(device.command(), command, "what the device is told by %s %r" % (path, body))
    device.reply(reply)
    return call.answer()


@topic
def rest():
    one = start("--timeout", "1")
    doc = document(one)
    device, gone, silent = Device(one, hello=True), Device(one, hello=True), Device(one, hello=True)
    check(gone.ask("GOTTA GO."), "SEE YA!", "a device leaves")
    fine = "FINE. I'M HERE 52.5 -0.000001, RUNNING AND CHARGED AT 87%."
    deep = b'{"seconds": ' + b"[" * 40 + b"]" * 40 + b"}"

    # method, target, body, status, a part of the message. In a target, D is the device, G the one that is gone, U is not known
    table = [
        ("GET", "/nowhere", None, 404, "there is no such path; GET /docs shows what there is"),
        ("GET", "//", None, 404, "no such path"), ("GET", "//vehicles", None, 404, "no such path"), ("GET", "/vehicles//", None, 400, "has to be a UUID"),
        ("GET", "/vehicles/D/turnOn/x", None, 404, "no such path"), ("GET", "/vehicles/D/fetch", None, 404, "no such path"),
        ("GET", "/vehicles%2FD", None, 404, "no such path"), ("GET", "/docs%00", None, 404, "no such path"), ("GET", "/Docs", None, 404, "no such path"),
        ("GET", "/vehicles/%", None, 400, "a percent sign without two hex digits"), ("GET", "/%zz", None, 400, "a percent sign"),
        ("POST", "/", None, 405, "Allow: GET, HEAD, OPTIONS"), ("DELETE", "/vehicles/D", None, 405, "Allow: GET, HEAD, OPTIONS"),
        ("GET", "/vehicles/D/turnOn", None, 405, "Allow: POST, OPTIONS"), ("HEAD", "/vehicles/D/turnOn", None, 405, ""), ("get", "/", None, 405, "method"),
        ("GET", "/vehicles/x", None, 400, "the id in the path has to be a UUID"), ("GET", "/vehicles/" + "a" * 300, None, 400, "has to be a UUID"),
        ("GET", "/vehicles/D?x=1", None, 400, "there is no parameter x here"), ("GET", "/?a=%FF", None, 400, "there is no parameter a here"),
        ("GET", "/vehicles?limit", None, 400, "NAME=VALUE"), ("GET", "/vehicles?limit=1&&limit=2", None, 400, "NAME=VALUE"),
        ("GET", "/vehicles?%6cimit=1&limit=2", None, 400, "limit is there more than once"), ("GET", "/vehicles?%zz=1", None, 400, "percent-encoded"),
        ("GET", "/vehicles?after=%E2%98&limit=1", None, 400, "after has to be a UUID"), ("GET", "/vehicles?after=%zz", None, 400, "after has to be a UUID"),
        ("GET", "/vehicles?connected=1", None, 400, "connected has to be true or false"), ("GET", "/vehicles?" + "x" * 60 + "=1", None, 400, "x..."),
        ("POST", "/vehicles/D/frequency?seconds=1", {"seconds": 1}, 400, "there is no parameter seconds here"),
        ("POST", "/vehicles/D/frequency", None, 400, 'the body has to be a JSON object, such as {"seconds": 60}'),
        ("POST", "/vehicles/D/frequency", b"{'seconds': 1}", 400, "a JSON object"), ("POST", "/vehicles/D/frequency", b"{", 400, "a JSON object"),
        ("POST", "/vehicles/D/frequency", [1], 400, "a JSON object"), ("POST", "/vehicles/D/frequency", deep, 400, "a JSON object"),
        ("POST", "/vehicles/D/frequency", {}, 400, "seconds is missing"), ("POST", "/vehicles/D/frequency", b'{"seconds": 1, "seconds": 1}', 400, "more than once"),
        ("POST", "/vehicles/D/frequency", {"seconds": 1, "a": 2, "b\u00e9": 3}, 400, 'seconds and nothing else, but has "a", "b\\u00e9"'),
        ("POST", "/vehicles/D/turnOnOrOff", {"running": 1}, 400, "running has to be true or false"), ("POST", "/vehicles/D/turnOnOrOff", {"running": None}, 400, "true or false"),
        ("POST", "/vehicles/D/turnOnOrOff", {"running": "true"}, 400, "true or false"), ("POST", "/vehicles/D/turnOn", {"running": True}, 400, "has to be empty, or {}"),
        ("POST", "/vehicles/D/turnOff", b"x", 400, "has to be empty, or {}"), ("POST", "/vehicles/D/disconnect", b"[]", 400, "has to be empty, or {}"),
        ("POST", "/vehicles/D/command", {"message": "x" * 65536}, 413, "the body is over 65536 bytes"),
        ("GET", "/vehicles/" + "a" * 9000, None, 414, "the path is too long"),
    ]
    table += [("GET", "/vehicles HTTP/1.1\r\nX: " + "x" * 9000, None, 431, "the header fields are over 8192 bytes"), ("GET", "/ x", None, 400, "speaks HTTP/1.1")]
    table += [("GET", "/vehicles?limit=" + n, None, 400, "limit has to be a whole number from 1 to 500") for n in ("0", "501", "-1", "1.0", "x", "", "1" * 300)]
    table += [("POST", "/vehicles/D/frequency", {"seconds": n}, 400, "seconds has to be a whole number from 0 to 86400") for n in (86401, -1, 1.5, "60", None, True, 10 ** 30)]
    table += [("POST", "/vehicles/D/command", {"message": m}, 400, "message has to be a text of 1 to 256 bytes, without control characters")
              for m in ("", "x" * 257, "\u20ac" * 86, "a\nb", "\0", "a\x7f", "\u0080", "\u009f", 7, None, ["x"])]
    for path in COMMANDS + [ID]:
        body, method = BODIES.get(path.rsplit("/", 1)[1]), API[path].upper()
        table.append((method, path.replace("{id}", UNKNOWN), body, 404, "there is no such device; GET /vehicles has those that are known"))
        table.append((method, path.replace("{id}", "42"), body, 400, "the id in the path has to be a UUID"))
        if method == "POST":
            table.append((method, path.replace("{id}", "G"), body, 409, "the device is not connected"))
    for method, target, body, status, message in table:
        target = re.sub(r"\b[DG]\b", lambda m: {"D": device, "G": gone}[m[0]].id, target)
        got, value = http(one, method, target, body)
        why = "%s %s %.60r" % (method, target[:80], body)
        if check(got, status, why) and method != "HEAD":
            check(value.get("error") if isinstance(value, dict) else value, True, why + ": an error's answer")
            check_that(message in json.dumps(value) or message in value["message"], "%s says %r, not %r" % (why, value, message))
            if status not in (413, 414, 431) and target[:2] not in ("//", "/ "):
                as_documented(doc, method, target, got, value, why)

    # what is answered to a command
    for path, body, command, reply, changed in (
            ("/frequency", {"seconds": 86400}, "KEEP ME POSTED EVERY 86400 SECONDS.", "SURE, I WILL!", ("reportEvery", 86400)),
            ("/frequency", {"seconds": 0}, "KEEP ME POSTED EVERY 0 SECONDS.", "SURE, I WILL!", ("reportEvery", None)),
            ("/turnOn", None, "HEY YOU, RUN!", "DONE!", ("running", True)),
            ("/turnOff", {}, "HEY YOU, REST!", "DONE!", ("running", False)),
            ("/turnOnOrOff", {"running": True}, "HEY YOU, RUN!", "DONE!", ("running", True)),
            ("/turnOnOrOff", {"running": False}, "HEY YOU, REST!", "I CAN'T, SORRY.", ("running", True)),
            ("/command", {"message": "\u20ac" * 85 + "!"}, "\u20ac" * 85 + "!", "WHAT? \"\\\u2028\U0001f600", ("running", True)),
            ("/command", {"message": "x"}, "x", "", ("running", True)),
            ("/command", {"message": "KEEP ME POSTED EVERY 2147483647 SECONDS."}, "KEEP ME POSTED EVERY 2147483647 SECONDS.", "SURE, I WILL!", ("reportEvery", 2147483647))):
        status, value = obey(one, device, ID + path, body, command, reply)
        check((status, value), (200, {"error": False, "id": device.id, "command": command, "reply": reply, "done": not reply.startswith("I CAN'T")}), path)
        as_documented(doc, "POST", ID + path, status, value, path)
        check(vehicle(one, device.id)[changed[0]], changed[1], path + ": what is known then")
    status, value = obey(one, device, ID + "/fetch-info", None, "HOW'S IT GOING?", fine)
    as_documented(doc, "GET", ID + "/fetch-info", status, value, "of one that is connected")
    check((value.pop("reply"), value), (fine, vehicle(one, device.id)), "fetch-info: what was said, and what is known by that")
    check((value["position"], value["charge"], value["running"]), ({"lat": 52.5, "lon": -1e-06}, 87, True), "fetch-info has put in what was said")
    check(obey(one, device, ID + "/fetch-info", None, "HOW'S IT GOING?", "I CAN'T, SORRY.")[1]["reply"], "I CAN'T, SORRY.", "fetch-info, refused")
    status, value = http(one, "GET", "/vehicles/%s/fetch-info" % gone.id)
    as_documented(doc, "GET", ID + "/fetch-info", status, value, "of one that is gone")
    check((value["connected"], value["instance"], value["reply"]), (False, None, None), "fetch-info of one that is gone")
    status, value = obey(one, device, ID + "/disconnect", None, "GOTTA GO.", "SEE YA!")
    check((status, value["reply"], value["done"]), (200, "SEE YA!", True), "disconnect")
    check(vehicle(one, device.id)["connected"], False, "disconnect: what is known then")

    # who doesn't reply, and too many who wait for that
    asked = [(API[path].upper(), path.replace("{id}", silent.id), BODIES.get(path.rsplit("/", 1)[1])) for path in (COMMANDS * 3)[:16] + COMMANDS]
    began, got = time.monotonic(), set()
    answers = pipelined(one, asked)
    check_that(silent.command(), "the first one arrives")
    for n, ((method, target, _), (status, value)) in enumerate(zip(asked, answers())):
        got.add((n >= 16, status, value["message"], value["done"]))
        as_documented(doc, method, target, status, value, "who doesn't reply")
    check_that(time.monotonic() - began > 0.9, "not at once")
    check(got, {(False, 504, "the device did not reply in time (--timeout); whether it did what it was told is not known", None),
                (False, 503, "the device has not replied to the commands before this one; try again", False),
                (True, 503, "too many commands wait for replies, or the device is with another instance and Redis is down; try again", False)}, "of who doesn't reply")
    silent.close()
    check_that(wait_for(lambda: not vehicle(one, silent.id)["connected"]), "a device whose connection has ended is not connected")


@topic
def reading():
    one = start()
    doc = document(one)
    ids = sorted("%08x-0000-4000-8000-%012d" % (n * 2654435761 % 2 ** 32, n) for n in range(1, 8))
    devices = [Device(one, id, hello=True) for id in ids]
    for device in devices[:3]:
        device.ask("GOTTA GO.")
    check_that(wait_for(lambda: http(one, "GET", "/")[1]["devices"]["online"] == 4), "three of seven leave")

    for target in ("/", "/vehicles", "/vehicles/" + ids[0]):
        status, value = http(one, "GET", target)
        as_documented(doc, "GET", target, status, value, "what can be read")
    health = http(one, "GET", "/")[1]
    check((health["name"], health["version"], health["instance"], health["redis"], health["devices"], health["streams"], health["webhooks"]),
          ("fleet", version(), one.id, "none", {"online": 4, "known": 7}, 0, None), "GET /")
    check_that(0 <= health["uptime"] < 60, "a fresh one is up for less than a minute")

    for query, want, total in (("", ids, 7), ("?connected=true", ids[3:], 4), ("?connected=false", ids[:3], 3), ("?after=" + ids[2].upper(), ids[3:], 7),
                               ("?after=" + ids[6], [], 7), ("?after=" + UNKNOWN, ids, 7), ("?limit=500", ids, 7), ("?limit=7&", None, None), ("?", ids, 7)):
        status, value = http(one, "GET", "/vehicles" + query)
        if want is None:
            check(status, 400, "a query that ends in &")
            continue
        check((status, [v["id"] for v in value["vehicles"]], value["total"], value["next"]), (200, want, total, None), "GET /vehicles" + query)
    for query, want in (("limit=1", ids), ("limit=2", ids), ("limit=7", ids), ("connected=true&limit=3", ids[3:]), ("limit=1&connected=false", ids[:3])):
        target, got, pages = "/vehicles?" + query, [], 0
        while target and pages < 10:
            value = http(one, "GET", target)[1]
            got += [v["id"] for v in value["vehicles"]]
            target = value["next"]
            pages += 1
        limit = int(re.search(r"limit=(\d)", query)[1])
        check((got, pages), (want, -(-len(want) // limit)), "by `next` from page to page: " + query)

    crowd = [Device(one, hello=True) for _ in range(500)]
    for device in crowd:
        device.ask(here("-89.123456", "-179.123456", "RESTING", 100))
    value = http(one, "GET", "/vehicles?limit=500")[1]
    check((len(value["vehicles"]), value["total"]), (500, 507), "as many on a page as there may be")
    check([v["id"] for v in value["vehicles"] + http(one, "GET", value["next"])[1]["vehicles"]], sorted(ids + [device.id for device in crowd]), "and the rest on the next")

    first = vehicle(one, ids[0])
    for target in ("/vehicles/%s/" % ids[0], "/vehicles/" + ids[0].upper(), "/%76ehicles/" + ids[0].replace("-", "%2d"), "/vehicles/%s?" % ids[0], "http://localhost/vehicles/" + ids[0]):
        check(http(one, "GET", target), (200, first), target)
    for target in API:
        target = target.replace("{id}", ids[3])
        allow = "POST, OPTIONS" if target.rsplit("/", 1)[1] in ("turnOn", "turnOff", "turnOnOrOff", "frequency", "disconnect", "command") else "GET, HEAD, OPTIONS"
        status, fields, body = ask(one, "OPTIONS", target, [("Host", "localhost")])
        check((status, fields["allow"], body), (204, allow, ""), "OPTIONS " + target)
        status, fields, body = ask(one, "PATCH", target, [("Host", "localhost")])
        check((status, fields["allow"], json.loads(body)["error"]), (405, allow, True), "PATCH " + target)
    check(ask(one, "OPTIONS", "*", [("Host", "localhost")])[1]["allow"], "GET, HEAD, POST, OPTIONS", "OPTIONS *")
    for target, kind in (("/", "application/json"), ("/docs", "text/html; charset=utf-8"), ("/docs-json", "application/json"), ("/events", "text/event-stream"),
                         ("/vehicles?limit=1", "application/json"), ("/vehicles/" + ids[0], "application/json")):
        head = ask(one, "HEAD", target, [("Host", "localhost")])
        check((head[0], head[1]["content-type"], head[1]["x-content-type-options"], head[1]["cross-origin-resource-policy"], head[2]), (200, kind, "nosniff", "same-origin", ""), "HEAD " + target)
        check(head[1].get("x-frame-options"), "DENY" if target == "/docs" else None, "HEAD %s: in no frame" % target)
        if target not in ("/events", "/"):
            got = ask(one, "GET", target, [("Host", "localhost")])
            check((got[1]["content-type"], got[1]["content-length"]), (kind, head[1]["content-length"]), "HEAD and GET " + target)
    check(ask(one, "HEAD", "/nowhere", [("Host", "localhost")])[::2], (404, ""), "HEAD of what isn't there")
    check([ask(one, "GET", "/", [])[0], ask(one, "GET", "/", [], version="1.0")[0]], [400, 200], "HTTP/1.1 needs a Host, 1.0 doesn't")

    # the page's policy allows what is in it, and nothing else
    status, fields, body = ask(one, "GET", "/docs", [("Host", "localhost")])
    policy = dict(part.strip().split(" ", 1) for part in fields["content-security-policy"].split(";"))
    for name in ("script", "style"):
        inside = re.findall("<%s>(.*?)</%s>" % (name, name), body, re.S)
        check(policy[name + "-src"], "'sha256-%s'" % base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode(), "the policy has the hash of its " + name)
        check(len(re.findall("<" + name, body)), 1, "there is one " + name)
    check([policy[name] for name in ("default-src", "connect-src", "frame-ancestors")], ["'none'", "'self'", "'none'"], "the policy forbids the rest")
    check(re.findall(r"""\s(?:style|on[a-z]+)=['"]""", body.split("<script>")[0]), [], "nothing in it that the policy forbids")


@topic
def openapi():
    token = os.path.join(folder, "token")
    with open(token, "w", encoding="utf-8") as f:
        f.write("0123456789abcdef")
    one, guarded = start(), start("--token-file", token)
    gone = Device(one, hello=True)
    gone.ask("GOTTA GO.")
    for fleet in one, guarded:
        doc, why = document(fleet), "with a token" if fleet is guarded else "without a token"
        check((doc["openapi"], doc["info"]["title"], doc["info"]["version"], doc["servers"]), ("3.1.0", "fleet", version(), [{"url": "/"}]), why)
        check({path: list(methods) for path, methods in doc["paths"].items()}, {path: [method] for path, method in API.items()}, "all that the issue has, " + why)
        scheme = doc["components"]["securitySchemes"]["bearerAuth"]
        check((scheme["type"], scheme["scheme"]), ("http", "bearer"), "the security scheme")
        operations = [(path, method, operation) for path, methods in doc["paths"].items() for method, operation in methods.items()]
        check(len({operation["operationId"] for _, _, operation in operations}), len(API), "each has a name of its own")
        for path, method, operation in operations:
            commands = path in COMMANDS
            statuses = {"200", "400"} | ({"404"} if "{id}" in path else set()) | ({"503"} if path == "/events" else set())
            statuses |= {"401" if fleet is guarded and commands else "403"}
            statuses |= {"503", "504"} if commands else set()
            statuses |= ({"409", "502"} if method == "post" else set())
            check(set(operation["responses"]), statuses, "what %s may be answered by, %s" % (path, why))
            check(operation.get("security"), [{"bearerAuth": []}] if commands and fleet is guarded else None, "security of %s, %s" % (path, why))
            check_that(operation["summary"] and operation["tags"], "%s has a summary and a tag" % path)
            check([p["name"] for p in operation["parameters"]], ["id"] if "{id}" in path else ["limit", "after", "connected"] if path == "/vehicles" else [], path)
            for p in operation["parameters"]:
                check((p["in"], p["required"]), ("path", True) if p["name"] == "id" else ("query", False), "%s %s" % (path, p["name"]))
                check_that(p["description"] and not faults(doc, p["schema"], p["example"]), "%s %s has a description, and an example that is one" % (path, p["name"]))
            body = BODIES.get(path.rsplit("/", 1)[1])
            if check("requestBody" in operation, body is not None, "does %s take a body" % path) and body:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                check((operation["requestBody"]["required"], faults(doc, schema, body)), (True, []), "the body of " + path)
                check(list(members(doc, schema)[0]), list(body), "the body of " + path)
            for status, response in operation["responses"].items():
                kind = {"/docs": "text/html; charset=utf-8", "/events": "text/event-stream"}.get(path, "application/json") if status == "200" else "application/json"
                check((list(response["content"]), bool(response["description"])), ([kind], True), "%s %s" % (path, status))
                if status != "200":
                    check(response["content"][kind]["schema"], {"$ref": "#/components/schemas/Error"}, "%s %s" % (path, status))
        for name, schema in doc["components"]["schemas"].items():
            properties, required = members(doc, schema)
            check_that(properties and set(required) <= set(properties), "schema %s has what it requires" % name)
            for key, p in properties.items():
                if "$ref" not in p and "anyOf" not in p and "$ref" not in p.get("items", {}):
                    check([faults(doc, p, one, "%s.%s" % (name, key)) for one in p["examples"]], [[]], "an example is one")
                check_that(p["description"], "%s.%s has a description" % (name, key))
    # what it tells of is there: of the commands, as a device that isn't connected shows; the stream has a topic of its own
    doc = document(one)
    for path, method in API.items():
        if path == "/events":
            continue
        status, value = http(one, method.upper(), path.replace("{id}", gone.id), BODIES.get(path.rsplit("/", 1)[1]))
        check(status, 409 if method == "post" else 200, "%s %s answers" % (method, path))
        as_documented(doc, method, path, status, value, "what it tells of is there")


# ---- server-sent events ----

class Stream:
    """A subscriber of /events. .events: (event, data) of each so far; .comments: how many."""

    def __init__(self, fleet, read=True):
        self.socket = socket.socket()
        started.append(self.socket)
        if not read:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(("127.0.0.1", fleet.rest))
        self.socket.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        self.events, self.comments, self.ended, self.text, self.head, self.retry = [], 0, False, "", None, None
        if read:
            threading.Thread(target=self.listen, daemon=True).start()
            if not wait_for(lambda: self.events):
                raise Gone("no event hello: %r" % self.text)

    def listen(self):
        chunks, data = b"", b""
        self.socket.settimeout(None)
        while True:
            try:
                more = self.socket.recv(65536)
            except OSError:
                more = b""
            if not more:
                self.ended = True
                return
            data += more
            if self.head is None:
                head, found, rest = data.partition(b"\r\n\r\n")
                if not found:
                    continue
                self.head, data = head.decode(), rest
            if "chunked" in self.head.lower():
                while b"\r\n" in data:
                    size, rest = data.split(b"\r\n", 1)
                    n = int(size, 16)
                    if len(rest) < n + 2:
                        break
                    chunks, data = chunks + rest[:n], rest[n + 2:]
            else:
                chunks, data = chunks + data, b""
            *blocks, chunks = chunks.split(b"\n\n")
            for block in blocks:
                self.take(block.decode())

    def take(self, block):
        found = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            found[name] = value[1:] if value[:1] == " " else value
        if "" in found:
            self.comments += 1
        if "retry" in found:
            self.retry = found["retry"]
        if "event" in found:
            self.events.append((found["event"], json.loads(found["data"])))

    def changes(self):
        return [data for event, data in self.events if event == "change"]


@topic
def events():
    one = start()
    doc = document(one)
    schema = {"$ref": "#/components/schemas/Change"}
    first = Stream(one)
    check((first.head.split("\r\n")[0], first.retry, first.events), ("HTTP/1.1 200 OK", "2000", [("hello", {"instance": one.id})]), "how a stream begins")
    fields = dict(line.lower().split(": ", 1) for line in first.head.split("\r\n")[1:])
    check([fields[name] for name in ("content-type", "x-accel-buffering", "cache-control", "x-content-type-options")],
          ["text/event-stream", "no", "no-store", "nosniff"], "its fields")
    began = time.monotonic()
    second = Stream(one)
    check(http(one, "GET", "/")[1]["streams"], 2, "GET / counts subscribers")
    check(ask(one, "GET", "/events", [], version="1.0")[0], 400, "an answer without an end needs HTTP/1.1")

    device = Device(one, hello=True)
    for message in (here("1.5", "2", "RUNNING", 50), here("1.5", "2", "RUNNING", 50), here("1.5", "2", "RUNNING", 49), "PING.",
                    blob("a\n\nb\r\u2028"), here("1.5", "3", "RESTING", 49), "GOTTA GO."):
        device.ask(message)
    want = [["online"], ["position", "charge", "running"], ["charge"], ["blob"], ["position", "running"], ["offline"]]
    for stream in first, second:
        check_that(wait_for(lambda: len(stream.changes()) >= len(want)), "all changes come")
        check([change["changes"] for change in stream.changes()], want, "what each change was")
        for change in stream.changes():
            check(faults(doc, schema, change), [], "a change is as documented")
            check(change["vehicle"]["id"], device.id, "whose it is")
    check(len({change["id"] for change in first.changes()}), len(want), "each has an id of its own")
    check(first.changes(), second.changes(), "both are told the same")
    check(first.changes()[3]["blob"], "a\n\nb\r\u2028", "a blob, line feeds and all, is one event")
    check(first.changes()[-1]["vehicle"], vehicle(one, device.id), "the vehicle is as it is known")

    # one that doesn't read is closed; who reads misses nothing, and devices are served meanwhile
    slow = Stream(one, read=False)
    check_that(wait_for(lambda: http(one, "GET", "/")[1]["streams"] == 3), "one that doesn't read has come")
    device, large, sent = Device(one, hello=True), blob("\1" * 8192), 0
    while sent < 1000 and http(one, "GET", "/")[1]["streams"] == 3:
        for _ in range(20):
            device.ask(large)
            sent += 1
    check(http(one, "GET", "/")[1]["streams"], 2, "who doesn't read is closed: after %d changes of 50 kB" % sent)
    for stream in first, second:
        check_that(wait_for(lambda: len(stream.changes()) == len(want) + 1 + sent), "who reads gets all")
        check([c["vehicle"]["issues"] for c in stream.changes()[len(want) + 1:]], list(range(1, sent + 1)), "in their order")
    got = b""
    slow.socket.settimeout(DEADLINE)
    try:
        for more in iter(lambda: slow.socket.recv(65536), b""):
            got += more
    except OSError:
        pass
    check_that(len(got) < sent * 49152, "the slow one doesn't get all")

    # as many as there may be
    many = [Stream(one) for _ in range(254)]
    status, fields, body = ask(one, "GET", "/events", [("Host", "localhost")])
    check((status, json.loads(body)["message"], "retry-after" in fields), (503, "256 subscribers are there already; try later", True), "one more than 256")
    as_documented(doc, "GET", "/events", status, json.loads(body), "one more than 256")
    many.pop().socket.shutdown(socket.SHUT_RDWR)
    check_that(wait_for(lambda: http(one, "GET", "/")[1]["streams"] == 255), "one leaves")
    many.append(Stream(one))
    device.ask(here("1.5", "2", "RUNNING", 50))
    check_that(wait_for(lambda: all(len(stream.changes()) == 1 for stream in many)), "all of them are told")
    check_that(wait_for(lambda: first.comments, 17), "a comment every 15 s")
    check_that(first.comments <= (time.monotonic() - began) // 15 + 1, "and not more often")
    began = time.monotonic()
    check((one.stop(), one.errors()), (0, ""), "the end, with 256 subscribers")
    check_that(time.monotonic() - began < 5, "it doesn't wait for them")
    check_that(wait_for(lambda: first.ended and many[0].ended), "subscribers are closed at the end")


# ---- who may command ----

@topic
def token():
    path = os.path.join(folder, "token")
    good = "0123456789abcdef"

    def put(data):
        with open(path, "wb") as f:
            f.write(data)

    for data, text in ((b"", "16 to 512 printable"), (b"0123456789abcde", "16 to 512"), (b"x" * 513, "16 to 512"), (b"x" * 100000, "16 to 512"), (b"0123456789 abcdef", "without spaces"),
                       (b"0123456789abcdef\n0123456789abcdef\n", "one line"), (b"0123456789\0abcdef", "printable"), ("0123456789abcd\u00e9f".encode(), "printable")):
        put(data)
        status, out, error = run("server", "--tcp-port", "0", "--rest-port", "0", "--token-file", path)
        check((status, out, text in error), (2, "", True), "a token file with %.40r: %s" % (data, error))
    for file in "/no/such/file", folder:
        status, out, error = run("server", "--tcp-port", "0", "--rest-port", "0", "--token-file", file)
        check((status, out, error), (1, "", "fleet: cannot read --token-file %s; is it there, and may this user read it?\n" % file), "a token file that can't be read")

    put(good.encode())
    for mode, told in (0o600, False), (0o644, False), (0o622, True), (0o660, True):
        os.chmod(path, mode)
        one = start("--token-file", path)
        check("other users may write to it" in one.errors(), told, "a token file of mode %o: %s" % (mode, one.errors()))
        check(one.stop(), 0, "it ends")
    os.chmod(path, 0o600)

    targets = [(API[p].upper(), p.replace("{id}", UNKNOWN), json.dumps(BODIES.get(p.rsplit("/", 1)[1], {})).encode()) for p in COMMANDS]
    for data in (good.encode(), b"\r\n \t" + good.encode() + b"\n\n", b"~" * 512):
        put(data)
        one = start("--token-file", path)
        right = data.strip().decode()
        for method, target, body in targets:
            for authorization, status, error in (
                    ([], 401, False), (["Bearer " + right], 404, None), (["bearer   " + right], 404, None), (["Bearer " + right + "x"], 401, True), (["Bearer " + right[:-1]], 401, True),
                    (["Bearer"], 401, True), (["Bearer "], 401, True), ([right], 401, True), (["Basic " + right], 401, True), (["Bearer " + right] * 2, 401, False)):
                got, fields, text = ask(one, method, target, [("Host", "example.com"), ("Origin", "http://elsewhere")] + [("Authorization", a) for a in authorization], body)
                check(got, status, "%s %s with %.60r" % (method, target, authorization))
                if status == 401:
                    check((fields["www-authenticate"][:6], "invalid_token" in fields["www-authenticate"], json.loads(text)["error"]), ("Bearer", error, True), "with %.60r" % authorization)
                    check_that("--token-file" in json.loads(text)["message"], "it says where the token is")
        for target in ("/", "/docs", "/docs-json", "/vehicles"):
            check(ask(one, "GET", target, [("Host", "x")])[0], 200, "no token is needed for " + target)
        check(ask(one, "GET", "/vehicles/" + UNKNOWN, [("Host", "x")])[0], 404, "no token is needed to read")
        doc = document(one)
        as_documented(doc, "POST", ID + "/turnOn", *http(one, "POST", "/vehicles/%s/turnOn" % UNKNOWN), "without a token")

    # without one: loopback only, and only what comes from it. The status 404 says that it may
    one, other = start(), start("--ip", "127.0.0.2")
    port = ":%d" % one.rest
    table = [
        ("127.0.0.1" + port, [], 404), ("localhost" + port, [], 404), ("LocalHost", [], 404), ("127.1.2.3:1", [], 404),
        ("example.com", [], 403), ("example.com" + port, [], 403), ("127.0.0.1.example.com", [], 403), ("localhost.example.com", [], 403), ("10.0.0.1", [], 403), ("127.", [], 403),
        ("127....", [], 403), ("127.0.0.256", [], 403), ("127.0.0.1.2", [], 403),
        ("127.1", [], 403), ("127.0.0.1.", [], 403), ("0.0.0.0" + port, [], 403), ("notlocalhost", [], 403),
        ("[::1]" + port, [], 404), ("a.localhost" + port, [], 404),
        ("", [], 404), ("", [("Origin", "http://")], 403),
        ("127.0.0.1" + port, [("Origin", "http://127.0.0.1" + port)], 404), ("localhost:1", [("Origin", "https://LOCALHOST:1")], 404),
        ("127.0.0.1" + port, [("Origin", "http://127.0.0.1:1")], 403), ("127.0.0.1" + port, [("Origin", "http://localhost" + port)], 403),
        ("127.0.0.1" + port, [("Origin", "http://example.com")], 403), ("127.0.0.1" + port, [("Origin", "null")], 403), ("127.0.0.1" + port, [("Origin", "http://")], 403),
        ("127.0.0.1" + port, [("Sec-Fetch-Site", "same-origin")], 404), ("127.0.0.1" + port, [("Sec-Fetch-Site", "none")], 404),
        ("127.0.0.1" + port, [("Sec-Fetch-Site", "cross-site")], 403), ("127.0.0.1" + port, [("Sec-Fetch-Site", "same-site")], 403),
        ("127.0.0.1" + port, [("Authorization", "Bearer x")], 404),
        ("127.0.0.1" + port, [("Origin", "http://127.0.0.1" + port)] * 2, 403),
        ("127.0.0.1" + port, [("Origin", "http://127.0.0.1" + port), ("Origin", "http://example.com")], 403),
        ("127.0.0.1" + port, [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")], 403),
    ]
    reads = [("HEAD" if path == "/events" else "GET", path.replace("{id}", UNKNOWN), b"")
             for path in API if path not in COMMANDS]
    for host, fields, status in table:
        for method, target, body in reads:      # a page must not learn where vehicles are, either
            got = ask(one, method, target, [("Host", host)] + fields, body)[0]
            want = 403 if status == 403 else 404 if UNKNOWN in target else 200
            check(got, want, "%s %s for %s, %r" % (method, target, host, fields))
        for method, target, body in targets:
            got, _, text = ask(one, method, target, [("Host", host)] + fields, body)
            check(got, status, "%s %s for %s, %r" % (method, target, host, fields))
            if status == 403:
                check_that("--token-file" in json.loads(text)["message"], "it says what to do: " + text)
    for scheme, host, status in (("http", "example.com", 403), ("HTTPS", "example.com" + port, 403), ("http", "127.0.0.1" + port, 404)):
        for field in ("127.0.0.1" + port, "example.com"):      # what the target names counts
            check(ask(one, "POST", scheme + "://" + host + targets[0][1], [("Host", field)], targets[0][2])[0], status, "for %s, Host %s" % (host, field))
    check(ask(one, "GET", "/vehicles", [], version="1.0")[0], 200, "without Host, no browser")
    for method in "OPTIONS", "POST", "GET":
        preflight = [("Origin", "http://example.com"), ("Access-Control-Request-Method", "POST")]
        got = ask(one, method, targets[0][1], [("Host", "localhost")] + preflight)[1]
        granted = [name for name in got if name.startswith("access-control")]
        check(granted, [], "nothing is granted to other sites")
    site, dest = ("Sec-Fetch-Site", "cross-site"), "Sec-Fetch-Dest"
    frame = [site, ("Sec-Fetch-Mode", "navigate"), (dest, "iframe")]
    link = frame[:2] + [(dest, "document")]
    for host, target, fields, status in (
            ("localhost", "/docs", link, 200), ("example.com", "/docs", link, 403),
            ("localhost", "/vehicles/%s/fetch-info" % UNKNOWN, link, 403),
            ("localhost", "/docs", link[:2], 403), ("localhost", "/docs", frame, 403),
            ("localhost", "/docs", [site] + link, 403)):
        got = ask(one, "GET", target, [("Host", host)] + fields)[0]
        check(got, status, "a link to %s on %s with %r" % (target, host, fields))
    args = "--host", "fleet.example,Other.example"
    named = start("--token-file", path, *args), start(*args)
    for host, fields, status in (
            ("FLEET.example:1", [], 200), ("localhost", [], 200),
            ("other.example", [("Origin", "https://other.example")], 200),
            ("fleet.example", [("Origin", "http://other.example")], 403),
            ("example", [], 403), ("fleet.example.com", [], 403)):
        for server in named:
            got = ask(server, "GET", "/vehicles", [("Host", host)] + fields)[0]
            check(got, status, "with --host, for %s, %r" % (host, fields))
    shown = [("Host", "x"), ("Authorization", "Bearer " + right)]
    check(ask(named[0], "GET", "/vehicles", shown)[0], 200, "who shows the token may call all")
    for hosts in "http://x", "x:80", "*.example", ",", "a b":
        said = run("server", "--host", hosts)[2]
        check_that("--host %s: names without ports are needed" % hosts in said, said)
    check(ask(other, "POST", targets[0][1], [("Host", "127.0.0.2:%d" % other.rest)], targets[0][2], ip="127.0.0.2")[0], 404, "127.0.0.2 is loopback, too")
    as_documented(document(one), "POST", ID + "/turnOn", 403, json.loads(text), "of another host")
    put(good.encode())
    for args, want in (([], 403), (["--token-file", path], 404)):
        public = start("--ip", "0.0.0.0", *args)
        own = [("Origin", "https://example.com"), ("Sec-Fetch-Site", "same-origin")]
        for fields, status in ([], 200), (own, 200), (own[:1] * 2, 403), ([site], 403):
            got = ask(public, "GET", "/vehicles", [("Host", "example.com")] + fields)[0]
            check(got, status, "a public server's reads, %r" % fields)
        for method, target, body in targets:
            got, _, text = ask(public, method, target, [("Host", "127.0.0.1"), ("Authorization", "Bearer " + good)], body)
            check(got, want, "on all addresses, %r" % args)
            if want == 403:
                check(json.loads(text)["message"], "commands need a token when others can reach the server: start it with --token-file FILE, or with --ip 127.0.0.1", target)


# ---- webhooks ----

class Receiver:
    """Takes webhooks at a port: its first answer is `first` (bytes, after which it closes; None: it says nothing), then 2xx;
    but 400 to what has `refuses` in it. It answers while .late is set."""

    def __init__(self, first=b"HTTP/1.1 200 OK\r\n\r\n", port=0, hold=False, refuses=None):
        self.first, self.hold, self.bodies, self.heads, self.times, self.open = first, hold, [], [], [], []
        self.refuses, self.late = refuses, threading.Event()
        self.late.set()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d/hook/x?y=%%20" % self.port

    def begin(self):
        self.listener.listen(16)
        started.append(self.listener)
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
                self.one(s)
            except OSError:
                return

    def one(self, s):
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(65536)
        head, _, data = data.partition(b"\r\n\r\n")
        n = int(re.search(rb"Content-Length: (\d+)", head)[1])
        while len(data) < n:
            data += s.recv(65536)
        self.late.wait(DEADLINE)
        if self.refuses and self.refuses in data.decode():
            s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            s.close()
            return
        self.times.append(time.monotonic())
        self.heads.append(head.decode())
        self.bodies.append(data.decode())
        answer = self.first if len(self.bodies) == 1 else b"HTTP/1.1 100 Continue\r\nHTTP/1.1 500: x\r\n\r\nHTTP/1.1 204 Taken\r\nX: y\r\n\r\n"
        self.open.append(s)
        started.append(s)
        if answer is not None:
            s.sendall(answer)
            if not self.hold:
                s.close()

    def changes(self):
        """What it has got, without what it had seen before."""
        found = {}
        for body in self.bodies:
            for change in json.loads(body)["events"]:
                found.setdefault(change["id"], change)
        return list(found.values())


def hooks_of(fleet):
    return http(fleet, "GET", "/")[1]["webhooks"]


def drive(device, n, message=None):
    """So many changes in one go (default: of the charge)."""
    for i in range(n):
        device.send(message or here("1", "2", "RUNNING", i % 2))
    for i in range(n):
        device.said("reply")


@topic
def webhook():
    for url, status, text in (("https://127.0.0.1/", 2, "there is no TLS here"), ("127.0.0.1:80", 2, "http://HOST:PORT/PATH is needed"), ("http://", 2, "HOST:PORT/PATH is needed"),
                              ("http://:80/", 2, "HOST:PORT/PATH is needed"), ("http://h:0/", 2, "HOST:PORT/PATH is needed"), ("http://h:1x/", 2, "HOST:PORT/PATH is needed"),
                              ("http://a b/", 2, "printable"), ("http://127.0.0.1/#x", 2, "without a user or #"), ("http://hush@127.0.0.1/", 2, "without a user or #"), ("http://u:hush@127.0.0.1:1", 2, "without a user or #"),
                              ("https://u:hush@127.0.0.1:1", 2, "there is no TLS here"),
                              ("http://127.0.0.1/" + "x" * 3000, 2, "the URL is too long"), ("http://%s/" % ("x" * 300), 2, "the URL is too long")):
        got, out, error = run("server", "--tcp-port", "0", "--rest-port", "0", "--webhook", url)
        check((got, out, text in error, "hush" in error), (status, "", True, False), "--webhook %.60s: %s" % (url, error))
    one = start("--webhook", "http://no-such-host.invalid/hush")      # it may be there later
    Device(one, hello=True)
    check_that(wait_for(lambda: "--webhook no-such-host.invalid:80: " in one.errors()) and "hush" not in one.errors(), "no such host: " + one.errors())
    check(one.stop(), 0, "it ends")

    # what can go wrong first, and seconds until it is tried again; then it is taken, and nothing is lost or out of its order.
    table = [
        ("all is well", b"HTTP/1.1 201 Created\r\n\r\n", 0, None), ("500", b"HTTP/1.1 500 Oh\r\n\r\n", 1, "it answered 500"), ("408", b"HTTP/1.0 408 x\r\n\r\n", 1, "it answered 408"),
        ("425", b"HTTP/1.1 425 x\r\n\r\n", 1, "it answered 425"), ("429", b"HTTP/1.1 429 x\r\n\r\n", 1, "it answered 429"),
        ("moved", b"HTTP/1.1 302 x\r\nLocation: /\r\n\r\n", 1, "it answered 302"), ("no HTTP", b"SSH-2.0-x\r\n", 1, "what it answers is not HTTP"),
        ("a terminal's reset", b"HTTP/1.1 \x1bc2\r\n\r\n", 1, "what it answers is not HTTP"), ("no line", b"HTTP/1.1 20", 1, "what it answers is not HTTP"), ("an endless line", b"x" * 70000, 1, "what it answers is not HTTP"),
        ("it closes", b"", 1, "the connection was lost before an answer"), ("silence", None, 11, "it did not answer within 10 s"), ("nobody is there", "late", 1, "the server is offline"),
    ]
    runs = []
    for why, first, wait, error in table:
        receiver = Receiver(b"HTTP/1.1 200 OK\r\n\r\n" if first == "late" else first)
        if first != "late":
            receiver.begin()
        one = start("--webhook", receiver.url)
        runs.append((why, first, wait, error, receiver, one, Stream(one), Device(one, hello=True), time.monotonic()))
    for why, first, wait, error, receiver, one, stream, device, began in runs:
        drive(device, 25)
        device.ask(blob("\u00e9"))
        if first == "late":
            receiver.begin()
    for why, first, wait, error, receiver, one, stream, device, began in runs:
        check_that(wait_for(lambda: len(stream.changes()) == 27), "all changes are made")
        check_that(wait_for(lambda: hooks_of(one) == {"waiting": 0, "sent": 27, "dropped": 0}, wait + DEADLINE), why + ": all are taken: %r" % hooks_of(one))
        check(receiver.changes(), stream.changes(), why + ": all came, in their order")
        check(receiver.heads[0].split("\r\n")[0], "POST /hook/x?y=%20 HTTP/1.1", why)
        for field in "Host: 127.0.0.1:%d" % receiver.port, "Content-Type: application/json", "Connection: close":
            check_that(field in receiver.heads[0].split("\r\n"), why + ": " + field)
        if error:
            check_that(error in one.errors() and one.errors().count("trying again") == 1 and one.errors().count("it takes them again") == 1, why + ": " + one.errors())
            if first != "late":
                check(receiver.bodies[1], receiver.bodies[0], why + ": what was not taken is sent again")
                check_that(wait - 0.1 < receiver.times[1] - receiver.times[0] < wait + 2, "%s: again after %.1f s" % (why, receiver.times[1] - receiver.times[0]))
        else:
            check(one.errors(), "", why)

    # one that answers, but keeps its connections: some of them are not waited for, and then all goes on, too
    receiver = Receiver(hold=True).begin()
    one = start("--webhook", receiver.url)
    device = Device(one, hello=True)
    check_that(wait_for(lambda: hooks_of(one)["sent"] == 1), "taken, by one that keeps its connections")
    for i in range(20):
        drive(device, 1, here("1", "2", "RUNNING", i))
        check_that(wait_for(lambda: hooks_of(one)["sent"] == i + 2), "taken, by one that keeps its connections: %r" % hooks_of(one))
    check(len(receiver.bodies), 21, "each alone")


@topic
def webhook_refusal():
    """A receiver that refuses one change for good: that one is dropped, and no other."""
    receiver = Receiver(refuses="\\u0000").begin()
    one = start("--webhook", receiver.url)
    stream, device = Stream(one), Device(one, hello=True)
    receiver.late.clear()                                        # so that many changes wait
    for i in range(40):
        device.ask(blob("a\0b") if i in (7, 30) else here("1", "2", "RUNNING", i))
    receiver.late.set()
    check_that(wait_for(lambda: hooks_of(one)["waiting"] == 0), "nothing waits: %r" % hooks_of(one))
    want = [c for c in stream.changes() if "\0" not in c.get("blob", "")]
    check(receiver.changes(), want, "all others came, in their order")
    check(hooks_of(one), {"waiting": 0, "sent": len(want), "dropped": 2}, "two were dropped")
    check_that("it answered 400 to a change alone, which is dropped; GET / counts them" in one.errors(), "which is told: " + one.errors())


@topic
def webhook_bound():
    receiver = Receiver()
    one = start("--webhook", receiver.url)
    device, stream = Device(one, hello=True), Stream(one)
    made = 10300
    for _ in range(103):
        drive(device, 100)
    check_that(wait_for(lambda: len(stream.changes()) == made), "all changes are made")
    check(hooks_of(one), {"waiting": 10000, "sent": 0, "dropped": made + 1 - 10000}, "what waits is bounded, and what is dropped counted")
    check(one.errors().count("the oldest are dropped; GET / counts them"), 1, "it is said, once")
    receiver.begin()                # it is tried again within 60 s
    check_that(wait_for(lambda: hooks_of(one)["waiting"] == 0, 120), "what waits is taken in the end")
    check(receiver.changes(), stream.changes()[-10000:], "the newest are those that came, in their order")
    sizes = [(len(body.encode()), len(json.loads(body)["events"])) for body in receiver.bodies]
    check_that(all(size <= 65536 and n <= 100 for size, n in sizes), "no more than 64 KiB, and 100 changes, at once")
    check_that(len(sizes) < 10000 / 50, "and no fewer than fit: %d times" % len(sizes))

    # blobs: their bytes are bounded, too
    receiver = Receiver()
    one = start("--webhook", receiver.url)
    device = Device(one, hello=True)
    for _ in range(16):
        drive(device, 50, blob("\1" * 8192))
    found = hooks_of(one)
    check((found["dropped"] > 0, found["waiting"] * 49152 < 32 * 1048576, found["waiting"] + found["dropped"]), (True, True, 801), "bytes are bounded")
    receiver.begin()
    check_that(wait_for(lambda: hooks_of(one)["waiting"] == 0, 120), "large ones are taken, too")
    check([change["vehicle"]["issues"] for change in receiver.changes()], list(range(801 - found["waiting"], 801)), "the newest, in their order")

    # what waits at the end
    one = start("--webhook", Receiver().url)
    Device(one, hello=True).ask("GOTTA GO.")
    check(wait_for(lambda: hooks_of(one)["waiting"] == 2), True, "two wait")
    check((one.stop(), one.errors().split(": ")[-1]), (0, "2 changes were not taken before the end\n"), "the end")


# ---- options ----

@topic
def options():
    table = [
        # arguments, exit status, a part of what is said on stderr
        ([], 2, "usage: fleet server"),
        (["sever"], 2, "sever: server or device has to come first; fleet --help tells more"),
        (["server", "--prot", "1"], 2, "--prot: no such option; fleet server --help lists them"),
        (["server", "x"], 2, "x: no such option; fleet server --help lists them"),
        (["server", "--ip"], 2, "--ip needs a value"),
        (["server", "--ip", ""], 2, "--ip needs a value"),
        (["server", "--ip", "a..b"], 2, "a..b: there is no such host"),
        (["server", "--ip", "203.0.113.1", "--tcp-port", "0"], 1, "203.0.113.1 is not an address of this machine; choose another --ip"),
        (["server", "--tcp-port", "65536"], 2, "--tcp-port 65536: a whole number from 0 to 65535 is needed"),
        (["server", "--rest-port", "-1"], 2, "--rest-port -1: a whole number from 0 to 65535 is needed"),
        (["server", "--heartbeat", "0"], 2, "--heartbeat 0: a whole number from 1 to 86400 is needed"),
        (["server", "--heartbeat", "1.5"], 2, "--heartbeat 1.5: a whole number"),
        (["server", "--timeout", "3601"], 2, "--timeout 3601: a whole number from 1 to 3600 is needed"),
        (["server", "--workers", "65"], 2, "--workers 65: a whole number from 1 to 64 is needed"),
        (["server", "--state", "f", "--redis", "127.0.0.1:1"], 2, "--state with --redis: Redis keeps the devices; leave one of them out"),
        (["server", "--redis", "6379"], 2, "--redis: HOST:PORT or redis://"),
        (["server", "--redis", "hush:0"], 2, "--redis: HOST:PORT or redis://"),
        (["server", "--redis", "127.0.0.1:6379,"], 2, "HOST:PORT"),
        (["server", "--redis", "127.0.0.1:6379,prefix=a*"], 2, "--redis: ,prefix= takes up to 64 letters, digits, : . _ -"),
        (["server", "--redis", "127.0.0.1:6379,password="], 2, "HOST:PORT"),
        (["server", "--redis", "127.0.0.1:6379,pass=hush,prefix=f:"], 2, "HOST:PORT"),
        (["server", "--redis", "127.0.0.1:6379,password=" + 512 * "hush"], 2, "HOST:PORT"),
        (["server", "--redis", "127.0.0.1:6379,prefix=" + "x" * 65], 2, "--redis: ,prefix= takes"),
        (["server", "--redis", ":6379"], 2, "HOST:PORT"),
        (["server", "--redis", "rediss://:hush@h"], 2, "there is no TLS here"),
        (["server", "--redis", "redis://:hush@h/3"], 2, "use ,prefix=TEXT to keep programs apart"),
        (["server", "--redis", "h:1,password-file=no-such-folder/hush"], 1, "password-file= can't be read"),
        (["server", "--redis=redis://:hush@h"], 2, "--redis: no such option; fleet server --help lists them"),
        (["server", "redis://:hush@h"], 2, "redis: no such option; fleet server --help lists them"),
    ]
    for args, status, text in table:
        got, out, error = run(*args)
        check((got, out), (status, ""), "fleet %s: %s" % (" ".join(args), error))
        check_that(text in error, "fleet %s says %r, not %r" % (" ".join(args), error, text))
    for args in ["--help"], ["server", "--help"]:
        got, out, error = run(*args)
        check((got, out[:19], error), (0, "usage: fleet server", ""), "fleet " + " ".join(args))
    check(run("--version"), (0, "fleet %s\n" % version(), ""), "fleet --version")


def version():
    with open(os.path.join(HERE, "..", "..", "keyauth.h"), encoding="utf-8") as f:
        return re.search(r'#define KA_VERSION "(.*)"', f.read())[1]


@topic
def listening():
    first = start()
    for option, port, other in ("--tcp-port", first.tcp, "--rest-port"), ("--rest-port", first.rest, "--tcp-port"):
        got = run("server", option, str(port), other, "0")
        check(got, (1, "", "fleet: 127.0.0.1:%d is taken by another program; stop that one, or choose another %s\n" % (port, option)),
              option + " that is taken")
    check_that(uuid.UUID(first.id).version == 4, "an instance's id is a random UUID")
    for number in signal.SIGINT, signal.SIGTERM:
        one = start("--workers", "3")
        device = Device(one, hello=True)
        check(one.stop(number), 0, "exit status after signal %d" % number)
        check(one.errors(), "", "nothing to say after signal %d" % number)
        check_that(device.ended(), "a device's connection is closed in the end")


# ---- several instances ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def have(*programs):
    """Are they installed? Else the topic is skipped."""
    missing = [one for one in programs if not shutil.which(one, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        skip("%s is missing; sudo apt install redis-server haproxy" % " and ".join(missing))
    return not missing


class Redis:
    """A redis-server with its data in this topic's folder: .port, .address, .start(), .stop()."""

    def __init__(self, *args):
        self.args, self.port = args, free_port()
        self.address = "127.0.0.1:%d" % self.port
        self.data = os.path.join(folder, "redis-%d" % self.port)
        self.start()

    def start(self, lose=False):
        if lose:
            shutil.rmtree(self.data)
        os.makedirs(self.data, exist_ok=True)
        self.process = spawn(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.data, "--save", "",
                              "--appendonly", "yes", *self.args], stdout=subprocess.DEVNULL)
        if not wait_for(self.serves):
            raise Gone("redis-server does not start")

    def serves(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(100)[:5] in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)

    def ask(self, *words):
        """Send a command; its reply as it comes."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as s:
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(one.encode()), one.encode()) for one in words))
            return s.recv(65536)


class Proxy:
    """HAProxy by haproxy.cfg, in front of two instances: .tcp, .rest (ports)."""

    def __init__(self, *fleets):
        self.tcp, self.rest = free_port(), free_port()
        told = {"FLEET_IP": "127.0.0.1", "FLEET_TCP_PORT": self.tcp, "FLEET_REST_PORT": self.rest}
        for i, one in enumerate(fleets, 1):
            told.update({"FLEET_%d" % i: "127.0.0.1", "FLEET_%d_TCP" % i: one.tcp, "FLEET_%d_REST" % i: one.rest})
        spawn(["haproxy", "-db", "-f", os.path.join(HERE, "haproxy.cfg")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
              env={**os.environ, **{name: str(value) for name, value in told.items()}, "PATH": os.environ["PATH"] + ":/usr/sbin"})
        if not wait_for(self.serves):
            raise Gone("haproxy does not start")

    def serves(self):
        try:
            return http(self.rest, "GET", "/")[0] == 200
        except OSError:
            return False


def forwarded(receiver, device, change):
    """The webhooks that have this change of the device."""
    events = [one for body in receiver.bodies for one in json.loads(body)["events"]]
    return [one for one in events if one["vehicle"]["id"] == device.id and change in one["changes"]]


def instances_of(redis, n, *args):
    """So many of them, all of which are one fleet already."""
    fleets = [start("--redis", redis.address, *args) for _ in range(n)]
    check_that(wait_for(lambda: all(state_of(one) == "up" for one in fleets)), "Redis is up for all instances")
    return fleets


def state_of(fleet):
    return http(fleet, "GET", "/")[1]["redis"]


def say(fleets, n, text):
    """Have they all said so many lines, the last of which has that text?"""
    lines = [one.errors().splitlines() for one in fleets]
    return all(len(one) == n and text in one[-1] for one in lines)


def sees(fleet, device, **wanted):
    """Does the fleet know that of the device?"""
    known = vehicle(fleet, device.id)
    return known is not None and all(known[name] == value for name, value in wanted.items())


def alike(*fleets):
    """Do they say the same of all devices?"""
    known = [http(one, "GET", "/vehicles?limit=500")[1]["vehicles"] for one in fleets]
    return known[1:] == known[:-1]


def all_see(fleets, device, why, seconds=None, **wanted):
    if wait_for(lambda: all(sees(one, device, **wanted) for one in fleets), seconds):
        return check(True, True, why)
    known = [vehicle(one, device.id) for one in fleets]
    return check([one and {name: one[name] for name in wanted} for one in known], [wanted] * len(fleets), why)


def obeyed(fleet, device, word="turnOn", message="HEY YOU, RUN!", reply="DONE!"):
    """Command it there, and have it reply: what the one who commanded is answered."""
    call = Call(fleet, "POST", "/vehicles/%s/%s" % (device.id, word))
    check(device.command(), message, "a command arrives")
    device.reply(reply)
    status, answer = call.answer()
    return status, answer.get("reply")


def obeys(fleet, device):
    """Command it there once, and reply if the command arrives: is the one who commanded answered?"""
    call = Call(fleet, "POST", "/vehicles/%s/turnOn" % device.id)
    while call.is_alive():
        if device.command(0.1):
            device.reply("DONE!")
    return call.answer()[0] == 200


@topic
def instances():
    if not have("redis-server", "haproxy"):
        return
    redis = Redis()
    a, b = both = instances_of(redis, 2, "--timeout", "1")
    proxy = Proxy(a, b)
    check({Device(proxy.tcp).server for _ in range(4)}, {a.id, b.id}, "devices are handed to both instances")
    check({http(proxy.rest, "GET", "/")[1]["instance"] for _ in range(4)}, {a.id, b.id}, "people are handed to both instances")

    near, far = Device(a, hello=True), Device(b, hello=True)
    all_see(both, near, "a device at A is seen everywhere", connected=True, instance=a.id)
    all_see(both, far, "a device at B is seen everywhere", connected=True, instance=b.id)
    check(near.ask(here("52.5", "13.25", "RESTING", 80)), "OK, THANKS!", "a report")
    all_see(both, near, "a report at A is seen everywhere", position={"lat": 52.5, "lon": 13.25}, charge=80, running=False)
    for fleet, device in (b, near), (a, far), (a, near), (proxy.rest, near), (proxy.rest, near):
        check(obeyed(fleet, device), (200, "DONE!"), "a command, and its reply")
    all_see(both, near, "what the command changed is seen everywhere", running=True)
    check(obeyed(b, near, "turnOff", "HEY YOU, REST!", "I CAN'T, SORRY."), (200, "I CAN'T, SORRY."), "a reply that says no")

    late = Call(b, "POST", "/vehicles/%s/turnOn" % near.id)
    check(late.answer()[0], 504, "no reply in time, across instances")
    near.command(), near.reply("DONE!")

    newer = Device(b, near.id, hello=True)
    check_that(near.displaced(), "the newer connection wins, A to B")
    all_see(both, newer, "it is at B now", connected=True, instance=b.id)
    newest = Device(a, near.id, hello=True)
    check_that(newer.displaced(), "the newer connection wins, B to A")
    all_see(both, newest, "it is at A again", connected=True, instance=a.id)
    check(obeyed(b, newest), (200, "DONE!"), "a command finds the newest connection")

    newest.close()
    all_see(both, newest, "offline is told everywhere", connected=False, instance=None)
    check(http(b, "POST", "/vehicles/%s/turnOn" % near.id)[0], 409, "a command to who is offline")
    check(a.stop(), 0, "A is stopped")
    check(far.ask("PING."), "PONG.", "B goes on")
    other = Device(proxy.tcp)
    check(other.server, b.id, "all devices are handed to B")


@topic
def stopped():
    if not have("redis-server"):
        return
    a, b = instances_of(Redis(), 2)
    device = Device(a, hello=True)
    all_see([a, b], device, "online", connected=True)
    check(a.stop(), 0, "A is stopped")
    all_see([b], device, "A has said that its devices are offline", seconds=2, connected=False)
    check(a.errors() + b.errors(), "", "nothing to say")


@topic
def newcomer():
    if not have("redis-server"):
        return
    redis = Redis("--requirepass", "secret")
    redis.address += ",password=secret,prefix=f:"
    a, b = instances_of(redis, 2)
    devices = [Device(one, hello=True) for one in [a, b] * 150]
    for i, device in enumerate(devices):
        device.ask(here("%d.5" % (i % 90), "-%d.000001" % (i % 180), charge=i % 101))
    for device in devices[::3]:
        device.close()
    for device in devices[::3]:
        all_see([a, b], device, "offline", connected=False)
    # by a URL, with a user, whose password is in the environment; Redis may evict hashes, and says so to none but INFO
    port = ["-p", str(redis.port)]
    for words in (["ACL", "SETUSER", "alice", "on", ">a,b", "~f:*", "&f:*", "+@all", "-config"],
                  ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]):
        subprocess.run(["redis-cli", *port, *words], env={**os.environ, "REDISCLI_AUTH": "secret"}, stdout=subprocess.DEVNULL, check=True)
    c = start("--redis", "redis://alice@localhost:%d,prefix=f:" % redis.port, env={**os.environ, "KEYAUTH_REDIS_PASSWORD": "a,b"})
    check_that(wait_for(lambda: http(c, "GET", "/")[1]["devices"] == {"online": 200, "known": 300}), "a new instance knows all devices")
    check_that(wait_for(lambda: "may evict devices, since its maxmemory-policy is allkeys-lru" in c.errors()), "what may be evicted is told: " + c.errors())
    check([vehicle(c, one.id) for one in devices], [vehicle(a, one.id) for one in devices], "and all of them")
    check(obeyed(c, devices[1]), (200, "DONE!"), "it can command them")
    wrong = start("--redis", redis.address.replace("secret", "wrong"))
    check_that(wait_for(lambda: "WRONGPASS" in wrong.errors()), "a wrong password is told: %s" % wrong.errors())
    check(state_of(wrong), "away", "and of no use")
    check_that("wrong" not in wrong.errors().replace("wrong answer", ""), "and not shown: " + wrong.errors())


@topic
def redis_fails_over():
    """The master becomes a replica of what was its own: behind a proxy that asks for the role, or a name."""
    if not have("redis-server", "haproxy"):
        return
    first, second = Redis(), Redis()
    second.ask("REPLICAOF", "127.0.0.1", str(first.port))
    check_that(wait_for(lambda: b"master_link_status:up" in second.ask("INFO", "replication")), "there is a replica")
    front = free_port()
    config = os.path.join(folder, "haproxy-redis.cfg")
    with open(config, "w") as f:
        f.write("defaults\n mode tcp\n timeout connect 1s\n timeout client 1h\n timeout server 1h\n"
                "listen redis\n bind 127.0.0.1:%d\n option tcp-check\n tcp-check send info\\ replication\\r\\n\n"
                " tcp-check expect string role:master\n server a 127.0.0.1:%d check inter 100ms\n"
                " server b 127.0.0.1:%d check inter 100ms\n" % (front, first.port, second.port))
    spawn(["haproxy", "-db", "-f", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first.address = "127.0.0.1:%d" % front
    a, b = both = instances_of(first, 2)
    device = Device(a, hello=True)
    all_see(both, device, "before", connected=True, instance=a.id)
    second.ask("REPLICAOF", "NO", "ONE")
    first.ask("REPLICAOF", "127.0.0.1", str(second.port))
    # idle, they find it out by themselves; the subscriber moves along, else no command gets to the other instance
    check_that(wait_for(lambda: b"connected_clients" in second.ask("INFO", "clients") and
                        len([line for line in second.ask("CLIENT", "LIST").splitlines() if b"cmd=subscribe" in line or b"sub=3" in line]) == 2),
               "all have gone over: " + a.errors())
    device.ask(here(charge=7))
    all_see(both, device, "after", charge=7)
    # an instance may publish to the old master for a moment more: those commands are refused
    check_that(wait_for(lambda: obeys(b, device)), "commands arrive")
    c = start("--redis", "127.0.0.1:%d" % first.port)
    check_that(wait_for(lambda: "refuses: READONLY: it is a replica" in c.errors()),
               "a replica with no proxy in front is told, though nobody writes: " + c.errors())


@topic
def killed():
    if not have("redis-server", "haproxy"):
        return
    redis, hooks = Redis(), Receiver().begin()
    a, b, c = instances_of(redis, 3, "--webhook", hooks.url)
    proxy = Proxy(a, b)
    devices = [Device(proxy.tcp, hello=True) for _ in range(10)]
    at_a = [one for one in devices if one.server == a.id]
    check(len(at_a), 5, "half of them are at A")
    for device in devices:
        all_see([a, b, c], device, "online", connected=True, instance=device.server)
    check(a.stop(signal.SIGKILL), -signal.SIGKILL, "A is killed")
    at = time.monotonic()
    lost = at_a.pop()
    check(http(b, "POST", "/vehicles/%s/turnOn" % lost.id)[0], 503, "a call to an instance that has gone")
    for device in at_a:
        check_that(device.ended(), "its device loses the connection")
        again = Device(proxy.tcp, device.id, hello=True)
        check(again.server, b.id, "it is at another instance, which says so")
        all_see([b, c], again, "and is online there", connected=True, instance=b.id)
    all_see([b, c], lost, "who does not come back goes offline", connected=False)
    check_that(time.monotonic() - at < 10, "within 10 s")
    check_that(wait_for(lambda: forwarded(hooks, lost, "offline")), "offline is forwarded")
    time.sleep(2)
    check(len(forwarded(hooks, lost, "offline")), 1, "by one instance only")
    check([forwarded(hooks, one, "offline") for one in at_a], [[]] * len(at_a), "who came back in time was never offline")
    for device in devices:
        if device.server == b.id:
            check(device.ask("PING."), "PONG.", "a device of B was not concerned")


@topic
def paused():
    if not have("redis-server"):
        return
    a, b = instances_of(Redis(), 2)
    moved, stays, other = Device(a, hello=True), Device(a, hello=True), Device(b, hello=True)
    for device in moved, stays, other:
        all_see([a, b], device, "online", connected=True)
    a.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    again = Device(b, moved.id, hello=True)
    time.sleep(6)
    check_that(sees(b, stays, connected=False), "who was silent for so long is taken for gone")
    a.process.send_signal(signal.SIGCONT)
    check_that(moved.displaced(), "the older connection is closed")
    check_that(stays.displaced(), "who was made offline has to connect again")
    all_see([a, b], again, "the newer one stays", connected=True, instance=b.id)
    back = Device(a, stays.id, hello=True)
    all_see([a, b], back, "who has connected again is online", connected=True, instance=a.id)
    all_see([a, b], other, "who came back late does not take others for gone", connected=True, instance=b.id)
    for device in again, back, other:
        check(device.ask("PING."), "PONG.", "each has one connection")


def away(redis, fleets, devices, lose):
    """Redis goes, with its data or without, and comes back. The devices as they are then."""
    a, b = fleets
    [leaves, moves, stays, other] = devices
    redis.stop()
    check_that(wait_for(lambda: [state_of(one) for one in fleets] == ["away"] * 2), "it is told that Redis is away")
    leaves.close()
    moved, fresh = Device(b, moves.id, hello=True), Device(b, hello=True)
    fleeting = Device(a, hello=True)
    fleeting.close()
    check(stays.ask(here("1.5", "2.5", charge=7)), "OK, THANKS!", "own devices are served meanwhile")
    check(obeyed(a, stays), (200, "DONE!"), "and can be commanded")
    began = time.monotonic()
    check(http(a, "POST", "/vehicles/%s/turnOn" % other.id)[0], 503, "a command to a device elsewhere")
    check_that(time.monotonic() - began < 1, "is refused at once")
    check_that(sees(a, other, connected=True, instance=b.id), "it is as it was last known")
    check_that(wait_for(lambda: say(fleets, 1 + 2 * lose, "is down")), "it is said that Redis is away")
    redis.start(lose)
    check_that(wait_for(lambda: [state_of(one) for one in fleets] == ["up"] * 2), "it is told that Redis is back")
    all_see(fleets, stays, "what was reported meanwhile", connected=True, instance=a.id, position={"lat": 1.5, "lon": 2.5}, charge=7, running=True)
    all_see(fleets, leaves, "who went meanwhile", connected=False)
    all_see(fleets, fleeting, "who came and went meanwhile", connected=False)
    all_see(fleets, fresh, "who came meanwhile", connected=True, instance=b.id)
    all_see(fleets, other, "who did nothing", connected=True, instance=b.id)
    all_see(fleets, moved, "who went over meanwhile", connected=True, instance=b.id)
    check_that(moves.displaced(), "its older connection is closed")
    for device in moved, stays, fresh, other:
        check(device.ask("PING."), "PONG.", "nobody else was disconnected")
        check(obeyed(b if device.server == a.id else a, device), (200, "DONE!"), "calls across instances are back")
    check_that(wait_for(lambda: say(fleets, 2 + 2 * lose, "is back")), "it is said that Redis is back")
    return [Device(a, leaves.id, hello=True), Device(a, moves.id, hello=True), stays, other]


@topic
def redis_away():
    if not have("redis-server"):
        return
    redis = Redis()
    a, b = fleets = instances_of(redis, 2)
    devices = [Device(a, hello=True), Device(a, hello=True), Device(a, hello=True), Device(b, hello=True)]
    for lose in False, True:
        for device in devices:
            all_see(fleets, device, "online", connected=True, instance=device.server)
        devices = away(redis, fleets, devices, lose)
    [c] = instances_of(redis, 1)
    check_that(wait_for(lambda: alike(a, b, c)), "a new instance knows all, too")
    alone = start("--redis", "127.0.0.1:%d" % free_port())
    check(Device(alone).ask("PING."), "PONG.", "an instance that has never seen Redis serves its devices")
    check(state_of(alone), "away", "and tells so")


@topic
def redis_meddled_with():
    """Others write to the same Redis, or it does not take what it is told."""
    if not have("redis-server"):
        return
    redis = Redis()
    a, b = fleets = instances_of(redis, 2)
    device, other = Device(a, hello=True), Device(b, hello=True)
    key = "fleet:device:" + device.id
    all_see(fleets, device, "online", connected=True)

    hash = redis.ask("HGET", key, "device").split(b"\r\n")[1].decode()
    good = '{"instance":"%s","owner":"x","was":"x","version":1,"change":{"changes":[],"vehicle":%s}}' % (uuid.uuid4(), hash)
    for text in ("", "{", "{}", good.replace("1,", '"1",'), good.replace("1,", "99999999999999999999,"), good.replace('"x"', '"%s"' % ("x" * 99)),
                 good.replace(device.id, "x"), good.replace(hash, "{}"), good.replace('"x"', '"\\u0000"'), good.replace("[]", "0"), good):
        redis.ask("PUBLISH", "fleet:changes", text)
    for text in "", "x", "x" * 36, "x" * 60000:
        redis.ask("PUBLISH", "fleet:alive", text)
    call = '{"call":1,"from":"%s","device":"%s","message":"HEY YOU, RUN!"}' % (uuid.uuid4(), device.id)
    for text in ("", "{}", '{"reply":1,"status":200,"text":"DONE!"}', '{"reply":1,"status":1000}', call.replace("1,", "-1,"), call.replace(device.id, "x"),
                 call.replace("RUN", "x" * 257), call.replace("RUN", "\\u0000")):
        redis.ask("PUBLISH", "fleet:to:" + a.id, text)
    stream, meddler = Stream(a), str(uuid.uuid4())
    told = '{"instance":"%s","owner":"%s:1","was":"","version":8000000000000000,"change":%s}'
    for change, why in (('{"changes":["charge"],\n\n"vehicle":%s}' % hash, "lines of its own"),
                        ('{"changes":["charge"],"x":"%s","vehicle":%s}' % ("x" * 60000, hash), "longer than any change"),
                        ("{'changes':['charge'],'vehicle':%s}" % hash, "Python")):
        redis.ask("PUBLISH", "fleet:changes", told % (meddler, meddler, change))
        check(http(a, "GET", "/")[0], 200, "a change of " + why)
    us, at = int(time.time() * 1e6), "2026-11-21T09:30:00.123456Z"
    told = '{"instance":"%s","owner":"%s:1","was":"","version":%%d,"change":%%s}' % (meddler, meddler)
    state = json.loads(hash)
    change = {"id": str(uuid.uuid4()), "at": at, "changes": ["charge"], "vehicle": state}
    twice = json.dumps(change)[:-1] + ', "at": "%s"}' % at
    for value, why in (({**change, "blob": "x"}, "a blob that is no change"), ({**change, "changes": ["blob"]}, "no blob"), ({**change, "changes": ["blob"], "blob": 5}, "a blob that is a number"),
                       ({**change, "changes": ["blob"], "blob": "x" * 8193}, "a blob that is too long"), ({**change, "changes": ["blob"], "blob": {}}, "a blob that is an object"),
                       ({**change, "x": 1}, "another member"), (twice, "a member twice"), ({**change, "id": 1}, "an id that is none"), ({**change, "at": "now"}, "a time that is none"),
                       ({**change, "changes": "charge"}, "changes that are none"), ({**change, "changes": ["charge", "charge"]}, "a change twice"), ({**change, "changes": ["x"]}, "a change of another name"),
                       ({**change, "vehicle": {**state, "x": 1}}, "another member of the vehicle"), ({**change, "vehicle": {**state, "instance": "x"}}, "an instance that is none"),
                       ({**change, "vehicle": {**state, "position": {"lat": 1, "lon": 2, "x": 3}}}, "another member of the position"), ({**change, "vehicle": {**state, "charge": "5"}}, "a charge that is a text"),
                       ({k: v for k, v in change.items() if k != "at"}, "no time")):
        redis.ask("PUBLISH", "fleet:changes", told % (us, value if isinstance(value, str) else json.dumps(value)))
        check(http(a, "GET", "/")[0], 200, why)
    redis.ask("PUBLISH", "fleet:changes", told % (8000000000000000, json.dumps(change)))
    redis.ask("PUBLISH", "fleet:changes", (told % (us + 90000000000, json.dumps(change))).replace(meddler, b.id))
    check_that(wait_for(lambda: "is more than a day ahead of this machine's clock, and is not believed" in b.errors()), "a version far ahead is told: " + b.errors())
    check([event for event in stream.events if event[0] == "change"], [], "none of it is told")
    redis.ask("HSET", key, "version", "8000000000000000")
    check(device.ask(here(charge=33)), "OK, THANKS!", "a report")
    all_see(fleets, device, "whatever version its hash had", charge=33, connected=True, instance=a.id)
    strangers = [str(uuid.uuid4()) for _ in range(8)]
    for id, owner, more, why in ((strangers[4], "x" + "\u00e9" * 20, {}, "an owner whose 36th byte is half a letter"),
                                 (strangers[5], '%s:"' % meddler, {}, "an owner that ends a string"),
                                 (strangers[6], meddler + ":1", {"lastSeen": "\u0001" * 27}, "a time of controls"),
                                 (strangers[7], meddler + ":1", {"x": "x" * 200000}, "more than fits in a message")):
        redis.ask("HSET", "fleet:device:" + id, "owner", owner, "version", "1", "device", json.dumps({**json.loads(hash), **more, "id": id}))
    for n in range(100):
        redis.ask("SET", "fleet:device:%d%s" % (n, "x" * 2000), "")
    redis.ask("SET", "fleet:device:" + strangers[0], "x")
    redis.ask("HSET", "fleet:device:" + strangers[1], "owner", "x")
    redis.ask("HSET", "fleet:device:" + strangers[2], "owner", "x" * 99, "version", "1", "device", "{}")
    redis.ask("HSET", "fleet:device:" + strangers[3], "owner", "x", "version", "1", "device", "{}")
    redis.ask("HSET", "fleet:device:x", "owner", "x", "version", "1", "device", "{}")
    [c] = instances_of(redis, 1)
    check_that(wait_for(lambda: "refuses: WRONGTYPE" in c.errors()), "a key that is no hash is told: " + c.errors())
    check([vehicle(c, id) for id in strangers], [None] * 8, "what can't be read is left out")
    check(state_of(c), "up", "and does not keep it from reading the rest")
    redis.ask("DEL", *("fleet:device:" + id for id in strangers))
    check(obeyed(b, device), (200, "DONE!"), "all goes on")
    all_see([a, b, c], device, "as if nothing had been", connected=True, instance=a.id, running=True)

    for id, why in (device.id, "its older connection is not taken for its newest"), (str(uuid.uuid4()), "who isn't connected to A is not by a word of others"):
        told = '{"instance":"%s","owner":"%s:999","was":"*","version":%d,"change":{"id":"%s","at":"%s","changes":["online"],"vehicle":%s}}'
        redis.ask("PUBLISH", "fleet:changes", told % (uuid.uuid4(), a.id, time.time() * 1000000, uuid.uuid4(), at, hash.replace(device.id, id)))
        check_that(wait_for(lambda: [(vehicle(one, id) or {}).get("connected") for one in (a, b, c)] == [id == device.id] * 3), why)
        check_that(wait_for(lambda: (redis.ask("HGET", "fleet:device:" + id, "owner").split(b"\r\n")[1] == (a.id + ":999").encode()) == (id != device.id)), why)
    check(obeyed(b, device), (200, "DONE!"), "all goes on")

    for version in "inf", "nan", "1e300", "99999999999999999", "x":
        redis.ask("HSET", key, "version", version)
        [late] = instances_of(redis, 1)
        charge = len(version) + 20
        check(device.ask(here(charge=charge)), "OK, THANKS!", "a report after the version has become " + version)
        all_see([a, b, c, late], device, "is known to all, after the version has become " + version, charge=charge)

    for word in ("DEL", key), ("FLUSHALL",):
        redis.ask(*word)
        check(device.ask(here(charge=len(word[0]))), "OK, THANKS!", "a report after " + word[0])
        all_see([a, b, c], device, "what is deleted is there again", charge=len(word[0]))
    longest = "\u0001" * 8192
    check(device.ask("WTF! %d\n%s" % (len(longest), longest)), "DAAAMN! ISSUE REPORTED ON JIRA", "the longest change there is")
    all_see([a, b, c], device, "fits", issues=1)

    redis.ask("CONFIG", "SET", "maxmemory", "1")
    check(device.ask(here(charge=50)), "OK, THANKS!", "a report when Redis is full")
    check_that(wait_for(lambda: "refuses: " in a.errors() and "OOM" in a.errors()), "that it is full is told: " + a.errors())
    late = Device(b, device.id, hello=True)
    check_that(sees(c, device, charge=8, instance=a.id), "others don't know it")
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    all_see([a, b, c], late, "what could not be put is put when it can be", connected=True, instance=b.id)
    check_that(device.displaced(), "so the newer connection wins after all")
    check(other.ask("PING."), "PONG.", "and all goes on")

    for may_not, may in ("resetchannels", "allchannels"), ("-scan", "+scan"):
        redis.ask("ACL", "SETUSER", "default", may_not)
        e = start("--redis", redis.address)
        check_that(wait_for(lambda: "refuses: NOPERM" in e.errors()), "what it may not do is told: " + e.errors())
        redis.ask("ACL", "SETUSER", "default", may)
        all_see([e], late, "once it may it knows all", connected=True, instance=b.id)


class Hopper:
    """A device that connects here and there, ending its last connection or leaving it to the server to notice."""

    def __init__(self, fleets, random):
        self.fleets, self.random, self.id = fleets, random, str(uuid.UUID(int=random.getrandbits(128), version=4))
        self.connection, self.left = None, []

    def leave(self):
        for one in self.left:
            one.close()
        self.left = []

    def connect(self):
        if self.connection:
            self.left.append(self.connection)
        if self.random.random() < 0.5:
            self.leave()
        self.connection = None
        self.connection = Device(self.random.choice(self.fleets), self.id, hello=True)

    def act(self):
        what = self.random.random()
        if not self.connection or what < 0.3:
            self.connect()
        elif what < 0.4:
            self.left.append(self.connection)
            self.connection = None
            self.leave()
        else:
            self.connection.send(here(str(self.random.randrange(-90, 91)), str(self.random.randrange(-180, 181)), charge=self.random.randrange(101)))

    def step(self):
        try:
            self.act()
        except (OSError, Gone):
            self.connection = None

    def settle(self):
        """End what was left, and connect again if the newest connection was lost: the instance of that; None: it is offline."""
        self.leave()
        while self.connection:
            self.connection.send("PING.")
            while (said := self.connection.read(0.05)):
                pass
            if said is False:
                return self.connection.server
            self.connection = None
            self.connect()


@topic
def demo():
    if not have("redis-server", "haproxy"):
        return
    tcp, rest, redis = free_port(), free_port(), free_port()
    told = {"FLEET_TCP_PORT": str(tcp), "FLEET_REST_PORT": str(rest), "FLEET_REDIS_PORT": str(redis), "FLEET": FLEET}
    process = spawn([os.path.join(HERE, "demo")], env={**os.environ, **told}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said = [process.stdout.readline().decode() for _ in range(5)]
        check_that("Ctrl+C ends all" in said[-1], "it says what to do: %r" % said)
        check_that(wait_for(lambda: http(rest, "GET", "/")[1]["devices"]["online"] == 20), "20 devices are online")
        check(len({http(rest, "GET", "/")[1]["instance"] for _ in range(4)}), 2, "at two instances")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(DEADLINE)
    for port in tcp, rest, redis:
        check_that(wait_for(lambda: is_free(port)), "Ctrl+C ends what it has started")


def is_free(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


@topic
def chaos():
    if not have("redis-server"):
        return
    seed, redis = random.Random(7), Redis()
    fleets = instances_of(redis, 3)
    hoppers = [Hopper(fleets, seed) for _ in range(50)]
    for lose in False, True, None:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            seed.choice(hoppers).step()
        if lose is not None:
            redis.stop()
            for _ in range(100):
                seed.choice(hoppers).step()
            redis.start(lose)

    def agree():
        truth = {one.id: one.settle() for one in hoppers}
        told = [{one["id"]: one["instance"] for one in http(fleet, "GET", "/vehicles?limit=500")[1]["vehicles"]} for fleet in fleets]
        return all(one == truth for one in told)
    check_that(wait_for(agree, 30), "all instances agree on where each device is")
    check_that(wait_for(lambda: alike(*fleets)), "and on all about it")


# ---- the protocol ----

NOT_UNDERSTOOD = "SERVER COULD NOT PROCESS THE RECEIVED MESSAGE."
OK = "OK, THANKS!"
HERE_IS = "REPORT. I'M HERE %s, %s AND CHARGED AT %s%%."
MAX_BLOB, MAX_COMMAND = 8192, 256


def here(lat="1", lon="2", running="RUNNING", charge="50", word="REPORT."):
    return (HERE_IS % (lat + " " + lon, running, charge)).replace("REPORT.", word)


def blob(text, bytes=None):
    return "WTF! %d\n%s" % (len(text.encode()) if bytes is None else bytes, text)


@topic
def protocol():
    """Each message, and its reply; on one connection, that of ID."""
    f = start()
    d = Device(f, "0f8fad5b-d9cb-469f-a165-70867728950e")
    check(d.first, {"type": "connected", "message": "Connected to server", "serverId": f.id}, "what a device is greeted by")
    upper = d.id.upper()
    table = [
        # message, reply
        ("HELLO, I'M %s!" % d.id, "HI, NICE TO MEET YOU!"),
        ("HELLO, I'M %s!" % upper, "HI, NICE TO MEET YOU!"),
        ("HELLO, I'M %s!" % uuid.uuid4(), NOT_UNDERSTOOD),
        ("HELLO, I'M %s" % d.id, NOT_UNDERSTOOD),
        ("HELLO, I'M %s!!" % d.id, NOT_UNDERSTOOD),
        ("HELLO, I'M !", NOT_UNDERSTOOD),
        ("HELLO, I'M me!", NOT_UNDERSTOOD),
        ("hello, i'm %s!" % d.id, NOT_UNDERSTOOD),
        ("PING.", "PONG."),
        ("PING", NOT_UNDERSTOOD),
        ("PING. ", "PONG."), ("PING.\n", "PONG."), (" \t\r\nPING.\r\n \t", "PONG."), ("PI NG.", NOT_UNDERSTOOD), ("\u00a0PING.", NOT_UNDERSTOOD),
        ("ping.", NOT_UNDERSTOOD),
        ("PING.\0", NOT_UNDERSTOOD),
        ("", NOT_UNDERSTOOD),
        ("X" * 60000, NOT_UNDERSTOOD),
        (here(), OK),
        (here(word="FINE."), OK),
        (here(running="RESTING"), OK),
        (here(running="WALKING"), NOT_UNDERSTOOD),
        (here(running="running"), NOT_UNDERSTOOD),
        (here(word="HMM."), NOT_UNDERSTOOD),
        (here() + " ", OK), ("\n" + here(), OK),
        (here()[:-1], NOT_UNDERSTOOD),
        (here().replace(", ", ","), NOT_UNDERSTOOD),
        (here().replace("1 2", "1  2"), NOT_UNDERSTOOD),
        (here().replace("1 2", "1"), NOT_UNDERSTOOD),
        (here(charge="0"), OK), (here(charge="100"), OK), (here(charge="007"), OK),
        (here(charge="101"), NOT_UNDERSTOOD), (here(charge="-1"), NOT_UNDERSTOOD), (here(charge="5.5"), OK), (here(charge="67.5"), OK), (here(charge="100.01"), NOT_UNDERSTOOD),
        (here(charge="-0.4"), NOT_UNDERSTOOD), (here(charge="5."), NOT_UNDERSTOOD),
        (here(charge=""), NOT_UNDERSTOOD), (here(charge="9" * 40), NOT_UNDERSTOOD), (here(charge=str(2**32)), NOT_UNDERSTOOD),
        (blob(""), "DAAAMN! ISSUE REPORTED ON JIRA"),
        (blob("x"), "DAAAMN! ISSUE REPORTED ON JIRA"),
        (blob("two\nlines\0\x7f"), "DAAAMN! ISSUE REPORTED ON JIRA"),
        (blob("\u00e4\u20ac\U0001f6f4"), "DAAAMN! ISSUE REPORTED ON JIRA"),
        (blob("\u00e4", 1), NOT_UNDERSTOOD),
        (blob("x", 0), NOT_UNDERSTOOD), (blob("x", 2), NOT_UNDERSTOOD), (blob("x", -1), NOT_UNDERSTOOD),
        (blob("x" * MAX_BLOB), "DAAAMN! ISSUE REPORTED ON JIRA"),
        (blob("x" * (MAX_BLOB + 1)), NOT_UNDERSTOOD),
        (blob("x", 2**64 + 1), NOT_UNDERSTOOD),
        ("WTF! 13\n72,101,108,108,111,44,32,119,111,114,108,100,33", "DAAAMN! ISSUE REPORTED ON JIRA"), ("WTF! 2\n255,0\n", "DAAAMN! ISSUE REPORTED ON JIRA"),
        ("WTF! 2\n256,0", NOT_UNDERSTOOD), ("WTF! 2\n1,2,3", NOT_UNDERSTOOD), ("WTF! 2\n1,,2", NOT_UNDERSTOOD), ("WTF! 2\n1, 2", NOT_UNDERSTOOD), ("WTF! 3\n1,2", "DAAAMN! ISSUE REPORTED ON JIRA"),
        ("WTF! 1 \nx", NOT_UNDERSTOOD), ("WTF! 1x", NOT_UNDERSTOOD), ("WTF! \nx", NOT_UNDERSTOOD), ("WTF!", NOT_UNDERSTOOD),
        ("GOTTA GO", NOT_UNDERSTOOD),
        ("SURE, I WILL!", NOT_UNDERSTOOD),
        ("GOTTA GO.", "SEE YA!"),
    ]
    for message, reply in table:
        check(d.ask(message), reply, message[:60])
    check_that(d.ended(), "after GOTTA GO. the server closes")


@topic
def blobs():
    """What was reported, whether its bytes were sent as they are or as decimal numbers."""
    f = start()
    d = Device(f, hello=True)
    stream = Stream(f)
    table = [
        # message; the blob
        ("WTF! 13\n72,101,108,108,111,44,32,119,111,114,108,100,33", "Hello, world!"),
        ("WTF! 13\n72,101,108,108,111,44,32,119,111,114,108,100,33 \n", "Hello, world!"),
        ("WTF! 3\n1,2", "1,2"),                                   # three bytes, so these are it
        ("WTF! 1\n7", "7"), ("WTF! 1\n65", "A"), ("WTF! 3\nab\n", "ab\n"), ("WTF! 2\nab\n", "ab"),
        ("WTF! 3\n226,130,172", "\u20ac"), ("WTF! 2\n0,127", "\0\x7f"),
        ("WTF! 2\n255,0", "255,0"),                               # no UTF-8: as it was sent
    ]
    for message, _ in table:
        check(d.ask(message), "DAAAMN! ISSUE REPORTED ON JIRA", repr(message))
    check_that(wait_for(lambda: len([c for c in stream.changes() if "blob" in c["changes"]]) == len(table)), "all of them are told")
    check([c["blob"] for c in stream.changes() if "blob" in c["changes"]], [blob for _, blob in table], "as they are")
    check(d.ask(here(charge="67.5")), OK, "a charge with a fraction")
    check((vehicle(f, d.id)["charge"], vehicle(f, d.id)["issues"]), (68, len(table)), "is rounded")


@topic
def rivals():
    """Several connections have one id: who is displaced is told, and after some changes in a row the newer one has to wait."""
    f = start()
    id = str(uuid.uuid4())
    devices = [Device(f, id, hello=True)]
    for i in range(3):
        devices.append(Device(f, id, hello=True))
        check(devices[i].said("displaced"), DISPLACED, "the older one is told")
        check_that(devices[i].ended(), "and closed")
    for _ in range(3):
        late = Device(f, id)
        late.send("PING.")
        check(late.said("displaced"), RIVALS, "one too many is told")
        check_that(late.ended(), "and closed")
    check(devices[-1].ask("PING."), "PONG.", "who had it keeps it")
    devices[-1].close()
    check_that(wait_for(lambda: not vehicle(f, id)["connected"]), "until it goes")
    check(Device(f, id).ask("PING."), "PONG.", "then any other one can have it")
    one, two = [Simulator(f.tcp, "--id", str(uuid.UUID(int=7))) for _ in range(2)]
    check_that(wait_for(lambda: "another device has this id; connecting again in 4 s" in one.said(one.err) + two.said(two.err)), "devices back off")
    one.ends(signal.SIGTERM), two.ends(signal.SIGTERM)


@topic
def positions():
    """What is taken for a position, in millionths, and what isn't: on a connection that has one already."""
    f = start()
    d = Device(f, hello=True)
    table = [
        # latitude, longitude; as they are then known, None: not understood
        ("0", "0", (0, 0)), ("90", "180", (90, 180)), ("-90", "-180", (-90, -180)),
        ("52.520008", "13.404954", (52.520008, 13.404954)),
        ("-33.9", "-151.2", (-33.9, -151.2)),
        ("-0.5", "-0.000001", (-0.5, -0.000001)),
        ("-0", "-0.0", (0, 0)),
        ("007.5", "00", (7.5, 0)),
        ("1.0000004", "1.0000005", (1, 1.000001)),
        ("1.00000049999999999999999999", "-1.0000005", (1, -1.000001)),
        ("89.9999999", "179.9999995", (90, 180)),
        ("90.000000", "180.0000000000", (90, 180)),
        ("90.0000001", "0", None), ("0", "180.0000001", None), ("-90.00000001", "0", None), ("0", "-180.5", None),
        ("91", "0", None), ("0", "181", None), ("-91", "0", None), ("0", "-181", None), ("1" + "0" * 400, "0", None),
        ("4294967296", "0", None), ("18446744073709551616", "0", None),
        ("+45.0", ".5", (45, 0.5)), ("-.5", "4.5e1", (-0.5, 45)), ("1E1", "+1e+2", (10, 100)), ("1e-6", "15e-7", (1e-06, 2e-06)), ("0.0000009e8", "1800e-1", (90, 180)),
        ("0e99", "1e-99", (0, 0)), ("9" * 30 + "e-29", "0." + "0" * 30 + "1e31", (10, 1)), ("0.000000000000000000001e21", "123456789012345678901234567890e-28", (1, 12.345679)),
        ("90.0000000000000000000000000001", "0", None), ("1e2", "0", None), ("9000000000000000000001e-20", "0", None), ("1e99", "0", None), ("1e100", "0", None),
        ("1.", "0", None), (".", "0", None), ("+", "0", None), ("--1", "0", None), ("+-1", "0", None), ("- 1", "0", None), ("1e", "0", None), ("e1", "0", None), ("1e+", "0", None),
        ("1,5", "0", None), ("0x1", "0", None), ("nan", "0", None), ("inf", "0", None), ("", "0", None), ("1", "", None),
        ("1.5.5", "0", None), ("\u0661", "0", None),
    ]
    check(d.ask(here("1.5", "2.5", "RUNNING", "50")), OK, "a first position")
    known = vehicle(f, d.id)
    for lat, lon, place in table:
        why = "position %s %s" % (lat[:30], lon[:30])
        check(d.ask(here(lat, lon, "RESTING", "70")), NOT_UNDERSTOOD if place is None else OK, why)
        now = vehicle(f, d.id)
        if place is None:
            check(dict(now, lastSeen=0), dict(known, lastSeen=0), why + ": nothing changes")
            check_that(now["lastSeen"] > known["lastSeen"], why + ": but it was heard")
        else:
            check((now["position"], now["charge"], now["running"]), ({"lat": place[0], "lon": place[1]}, 70, False), why)
        known = now


@topic
def envelopes():
    """What is said around a message."""
    f = start()
    id, other = str(uuid.uuid4()), str(uuid.uuid4())
    good = {"type": "message", "message": "PING.", "clientId": id, "serverId": f.id}

    def without(name):
        return {k: v for k, v in good.items() if k != name}

    table = [
        # what is sent (an object, or a text), does the server understand it?
        (good, True),
        (without("serverId"), True), (dict(good, serverId=None), True), (dict(good, serverId={"a": [1]}), True), (dict(good, serverId=other), True),
        (dict(good, more=[{}]), True),
        (dict(good, clientId=id.upper()), True),
        (json.dumps(good).replace("PING", "\\u0050ING"), True),
        (json.dumps(good).replace(id[:1], "\\u00%x" % ord(id[0]), 1), True),
        ("  \r\n\t" + json.dumps(good, indent=4) + "\n\n", True),
        (repr(good), True),                                                              # what Python prints is taken, too
        (without("type"), False), (without("message"), False), (without("clientId"), False),
        (dict(good, type="reply2"), False), (dict(good, type="command"), False), (dict(good, type=""), False), (dict(good, type=1), False),
        (dict(good, message=None), False), (dict(good, message=1), False), (dict(good, message=["PING."]), False),
        (dict(good, clientId=None), False), (dict(good, clientId=7), False), (dict(good, clientId=""), False),
        (dict(good, clientId=id[:-1]), False), (dict(good, clientId=id + "0"), False), (dict(good, clientId=id.replace("-", "")), False),
        (dict(good, clientId="{%s}" % id), False), (dict(good, clientId="g" + id[1:]), False),
        (dict(good, clientId=other), False),                                             # it changes
        (json.dumps(good)[:-1] + ', "message": "PING."}', False),
        (json.dumps(good)[:-1] + ', "clientId": "%s"}' % id, False),
        (json.dumps(good)[:-1] + ', "type": "message"}', False),
        ("{}", False), ("{x}", False), ('{"a" 1}', False),
    ]
    d = Device(f, id)
    for sent, understood in table:
        text = sent if isinstance(sent, str) else json.dumps(sent)
        d.raw(text)
        check(d.said("reply"), "PONG." if understood else NOT_UNDERSTOOD, text)
    check(vehicle(f, other), None, "another clientId makes no device")
    check(vehicle(f, id)["connected"], True, "and the one that was there stays")

    d.raw("".join(json.dumps(good) for _ in range(300)))
    check([d.said("reply") for _ in range(300)], ["PONG."] * 300, "back to back, all at once")
    for c in json.dumps(good):
        d.raw(c)
        time.sleep(0.001)
    check(d.said("reply"), "PONG.", "byte by byte")

    for text, why in ("]", "no object"), ("x", "no object"), ("[{}]", "no object"), ('{"a": "' + "x" * 70000, "64 KiB"):
        d = Device(f, hello=True)
        d.raw(text)
        check(d.said("reply"), NOT_UNDERSTOOD, why)
        check_that(d.ended(), why + ": the server closes")
        check_that(wait_for(lambda: not vehicle(f, d.id)["connected"]), why + ": offline")


@topic
def strangers():
    """Who has not said a clear word is nobody's connection; the first word that is clear makes it one's."""
    f = start()
    for message in "PING.", here(), here(word="FINE."), blob("x"), "GOTTA GO.", None:
        d = Device(f)
        check(vehicle(f, d.id), None, "nothing is known of it")
        check(d.ask("WHAT?"), NOT_UNDERSTOOD, "a stranger's word")
        d.reply("DONE!")
        d.reply(here(word="FINE."))
        check(d.ask("WHAT?"), NOT_UNDERSTOOD, "a stranger's reply is no answer to anything")
        check(vehicle(f, d.id), None, "and makes no device")
        d.send("PING.", id=str(uuid.uuid4()))
        check(d.said("reply"), NOT_UNDERSTOOD, "who it is was said by the first message, though it was not understood")
        d.ask(message or "HELLO, I'M %s!" % d.id)
        known = vehicle(f, d.id)
        check((known["connected"], known["instance"]), (message != "GOTTA GO.", f.id if message != "GOTTA GO." else None), "after %r" % message)


@topic
def connections():
    """One device, several connections; and how they end."""
    f = start("--heartbeat", "1")
    id = str(uuid.uuid4())
    first = Device(f, id, hello=True)
    first.ask(here("1", "2", "RUNNING", "33"))
    second = Device(f, id)
    check(first.ask("PING."), "PONG.", "a connection that says nothing takes nothing from the first")
    check(second.ask("PING."), "PONG.", "the newer one is the device's")
    check_that(first.displaced(), "and the older one is closed, and told why")
    known = vehicle(f, id)
    check((known["connected"], known["charge"]), (True, 33), "it never was offline, and is known")
    first.close()
    time.sleep(0.2)
    check(vehicle(f, id)["connected"], True, "nor is it when the older one has gone")
    second.close()
    check_that(wait_for(lambda: not vehicle(f, id)["connected"]), "its connection is lost: offline")
    known = vehicle(f, id)
    check((known["charge"], known["instance"]), (33, None), "and known all the same")

    third = Device(f, id, hello=True)
    check(third.ask("GOTTA GO."), "SEE YA!", "goodbye")
    check_that(third.ended() and not vehicle(f, id)["connected"], "offline")


@topic
def silence():
    """Three heartbeats, of a second each."""
    f = start("--heartbeat", "1")
    began = time.monotonic()
    silent, stranger, babbler, talker = Device(f, hello=True), Device(f), Device(f), Device(f, hello=True)
    ended = {}

    def listen(name, d, word):
        while time.monotonic() - began < 7:
            if word:
                try:
                    d.send(word)
                except OSError:
                    pass
            if d.read(0.5) is None:
                ended[name] = time.monotonic() - began
                return

    threads = [threading.Thread(target=listen, args=args) for args in
               [("silent", silent, None), ("stranger", stranger, None), ("babbler", babbler, "WHAT?"), ("talker", talker, "WHAT?")]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for name in "silent", "stranger", "babbler":
        check_that(2.9 < ended.get(name, 0) < 5.5, "%s is closed after three heartbeats: %r" % (name, ended.get(name)))
    check("talker" in ended, False, "who talks, even what isn't understood, is not")
    check((vehicle(f, silent.id)["connected"], vehicle(f, talker.id)["connected"]), (False, True), "who is offline")


# ---- commands ----

CANT = "I CAN'T, SORRY."


def tell(f, id, what, body=None):
    """POST /vehicles/ID/WHAT, which somebody waits for."""
    return Call(f, "POST", "/vehicles/%s/%s" % (id, what), body if body is not None else {} if what != "disconnect" else None)


def command(f, id, message):
    return tell(f, id, "command", {"message": message})


def outcome(call):
    """(status, the device's reply)."""
    status, value = call.answer()
    return status, value.get("reply") if isinstance(value, dict) else value


@topic
def each_command():
    """Each command as it reaches a device, its reply as it reaches who asked, and what is known of the device then."""
    f = start()
    d = Device(f, hello=True)
    table = [
        # what is asked for, the command, the device's reply, what changes
        ("frequency", {"seconds": 30}, "KEEP ME POSTED EVERY 30 SECONDS.", "SURE, I WILL!", {"reportEvery": 30}),
        ("frequency", {"seconds": 40}, "KEEP ME POSTED EVERY 40 SECONDS.", CANT, {}),
        ("turnOn", None, "HEY YOU, RUN!", "DONE!", {"running": True}),
        ("turnOff", None, "HEY YOU, REST!", CANT, {}),
        ("turnOff", None, "HEY YOU, REST!", "DONE!", {"running": False}),
        ("turnOnOrOff", {"running": True}, "HEY YOU, RUN!", "DONE!", {"running": True}),
        ("turnOnOrOff", {"running": False}, "HEY YOU, REST!", "DONE!", {"running": False}),
        ("command", {"message": "HOW'S IT GOING?"}, "HOW'S IT GOING?", here("-1", "2.5", "RUNNING", "9", "FINE."),
         {"position": {"lat": -1, "lon": 2.5}, "charge": 9, "running": True}),
        ("command", {"message": "HOW'S IT GOING?"}, "HOW'S IT GOING?", CANT, {}),
        ("command", {"message": "KEEP ME POSTED EVERY 7 SECONDS."}, "KEEP ME POSTED EVERY 7 SECONDS.", "SURE, I WILL!", {"reportEvery": 7}),
        ("command", {"message": "SING \"\u00e4\u20ac\\\"!"}, "SING \"\u00e4\u20ac\\\"!", "LA \"\u00e4\u20ac\\\" LA", {}),
        ("command", {"message": "HEY YOU, JUMP!"}, "HEY YOU, JUMP!", "DONE!", {}),
        ("command", {"message": "KEEP ME POSTED EVERY 0 SECONDS."}, "KEEP ME POSTED EVERY 0 SECONDS.", "SURE, I WILL!", {"reportEvery": None}),
        ("command", {"message": "x" * MAX_COMMAND}, "x" * MAX_COMMAND, "y" * MAX_COMMAND, {}),
        ("command", {"message": "HOW ARE YOU?"}, "HOW ARE YOU?", here("3", "4", "RESTING", "8", "FINE."),
         {"position": {"lat": 3, "lon": 4}, "charge": 8, "running": False}),
    ]
    for what, body, sent, reply, changes in table:
        before = vehicle(f, d.id)
        call = tell(f, d.id, what, body)
        check(d.read(), {"type": "command", "message": sent, "serverId": f.id}, "%s %r: the command" % (what, body))
        d.reply(reply)
        check(outcome(call), (200, reply), "%s %r: the answer" % (what, body))
        check(dict(vehicle(f, d.id), lastSeen=0), dict(before, lastSeen=0, **changes), "%s %r: what is known then" % (what, body))
    call = tell(f, d.id, "disconnect")
    check(d.command(), "GOTTA GO.", "disconnect: the command")
    d.reply("SEE YA!")
    check(outcome(call), (200, "SEE YA!"), "disconnect: the answer")
    check_that(d.ended() and not vehicle(f, d.id)["connected"], "then it is offline")
    check(outcome(tell(f, d.id, "turnOn"))[0], 409, "a command to who is offline")
    check(outcome(tell(f, uuid.uuid4(), "turnOn"))[0], 404, "a command to who isn't known")


@topic
def replies():
    """Which of several commands a reply belongs to."""
    f = start("--timeout", "2")
    d = Device(f, hello=True)

    def sent(*messages):
        calls = []
        for message in messages:
            calls.append(command(f, d.id, message))
            check(d.command(), message, "a command arrives")
        return calls

    def outcomes(calls):
        return [outcome(c) for c in calls]

    def in_turn(*messages):
        """Requests on one connection, so that their order is known, and their outcomes: a device has one at a time."""
        answers = pipelined(f, [("POST", "/vehicles/%s/command" % d.id, {"message": message}) for message, _ in messages])
        for message, reply in messages:
            check(d.command(), message, "a command arrives")
            check(d.ask("PING."), "PONG.", "and no other one before its reply")
            d.reply(reply)
        return [value["reply"] for _, value in answers()]

    fine = here(word="FINE.")
    for messages, why in (
            ([("A", "1"), ("B", "2"), ("C", "3")], "in their order"),
            ([("HOW'S IT GOING?", fine), ("HEY YOU, RUN!", "DONE!"), ("A", "DONE!")], "each one its own"),
            ([("HEY YOU, RUN!", CANT), ("HEY YOU, REST!", "DONE!")], "sorry is an answer, too")):
        check(in_turn(*messages), [reply for _, reply in messages], why)
    check(vehicle(f, d.id)["running"], False, "and DONE! is that of the second")

    calls = sent("HEY YOU, RUN!")
    for reply in "WHAT?", "SURE, I WILL!", "SEE YA!", "done!", here("91", word="FINE."), "z" * (MAX_COMMAND + 1):
        d.reply(reply)
    check(d.said("reply"), NOT_UNDERSTOOD, "a reply that is too long; the others are not answered")
    d.reply("DONE!")
    check(outcomes(calls), [(200, "DONE!")], "what can't be an answer is none")
    d.reply("DONE!")
    check(d.ask("PING."), "PONG.", "a reply to nothing is not answered, and does no harm")
    d.reply(here("7", "8", "RESTING", "44", "FINE."))
    check(d.ask("PING."), "PONG.", "nor is a FINE. to nothing,")
    check((vehicle(f, d.id)["charge"], vehicle(f, d.id)["running"]), (44, False), "but what it says counts")


@topic
def timeouts():
    f = start("--timeout", "1", "--heartbeat", "3")
    d = Device(f, hello=True)
    late = tell(f, d.id, "turnOn")
    check(d.command(), "HEY YOU, RUN!", "a command")
    check(outcome(late)[0], 504, "it is not replied to in time")
    check_that(0.9 < late.took < 3, "which takes a second: %r" % late.took)
    next = tell(f, d.id, "turnOff")
    check(d.command(), "HEY YOU, REST!", "the next one")
    d.reply(CANT)
    d.reply("DONE!")
    check(outcome(next), (200, "DONE!"), "a late reply is not taken for that of the next one")
    check(vehicle(f, d.id)["running"], False, "nor is it said of it")

    late = tell(f, d.id, "turnOn")
    check(d.command(), "HEY YOU, RUN!", "another one")
    check(outcome(late)[0], 504, "that is too late")
    d.reply("DONE!")
    check(d.ask("PING."), "PONG.", "its reply is heard")
    check(vehicle(f, d.id)["running"], True, "and what it says counts")

    check((outcome(tell(f, d.id, "turnOff"))[0], d.command()), (504, "HEY YOU, REST!"), "one that is never replied to")
    for _ in range(11):                       # more than a heartbeat after that
        d.ask("PING.")
        time.sleep(0.5)
    call = tell(f, d.id, "turnOff")
    d.command()
    d.reply("DONE!")
    check(outcome(call), (200, "DONE!"), "is waited for no longer than a heartbeat")

    call = tell(f, d.id, "turnOn")
    check(d.command(), "HEY YOU, RUN!", "one whose device")
    d.close()
    check(outcome(call)[0], 502, "goes away")
    check_that(call.took < 0.9, "is answered at once")
    d = Device(f, d.id, hello=True)
    call = tell(f, d.id, "turnOn")
    d.command()
    newer = Device(f, d.id, hello=True)
    check(outcome(call)[0], 502, "and so is one whose device has connected anew")
    call = tell(f, d.id, "turnOn")
    check(newer.command(), "HEY YOU, RUN!", "the next one goes to the new connection")
    newer.reply("DONE!")
    check(outcome(call), (200, "DONE!"), "and is replied to from there")

    calls = [command(f, d.id, "C%d" % i) for i in range(20)]
    got = sorted(outcome(c)[0] for c in calls)
    check((got, sum(c.took < 0.9 for c in calls)), ([503] * 19 + [504], 4), "of a device, sixteen commands can wait")


@topic
def many_calls():
    """An instance has 4,096 commands that wait; those beyond are refused at once."""
    f = start("--timeout", "3")
    devices = [Device(f, hello=True) for _ in range(300)]
    requests = [b"POST /vehicles/%s/turnOn HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n" % d.id.encode() for d in devices]
    people = [socket.create_connection(("127.0.0.1", f.rest), DEADLINE) for _ in range(14)]
    started.extend(people)
    for person in people:
        person.sendall(b"".join(requests))

    def answers(person):
        text = b""
        while text.count(b"HTTP/1.1 ") < 300 or not text.endswith(b"}"):
            more = person.recv(65536)
            if not more:
                break
            text += more
        return [text.count(words) for words in (b"too many commands", b"did not reply", b"before this one")]

    counts = [answers(person) for person in people]
    sums = [sum(c[i] for c in counts) for i in range(3)]
    check((sums[0], sums[1] + sums[2], sums[1] >= 300), (300 * 14 - 4096, 4096, True), "503 at once, and 504, or 503 for those that had no turn")
    call = tell(f, devices[0].id, "turnOff")
    late = 0
    while (message := devices[0].command()) == "HEY YOU, RUN!":
        late += 1
    check(message, "HEY YOU, REST!", "when their time is over there is room again")
    for _ in range(late):
        devices[0].reply(CANT)
    devices[0].reply("DONE!")
    check(outcome(call), (200, "DONE!"), "for a command that is replied to")


@topic
def many_devices():
    """100,000 are known; then who is offline longest makes room for who comes."""
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    d = Device(f, hello=True)
    check(f.stop(), 0, "a state")
    line = open(path).readlines()[-1]
    with open(path, "w") as file:
        for i in range(100000):
            seen = json.dumps(time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - (172800 if i == 777 else 86400))))
            file.write(re.sub('"lastSeen": ?"[^"]*"', '"lastSeen": ' + seen, line.replace(d.id, "00000000-0000-4000-8000-%012x" % i)))
    f = start("--state", path)
    check(http(f, "GET", "/")[1]["devices"], {"online": 0, "known": 100000}, "a file of as many")
    more = Device(f)
    check(more.ask("PING."), "PONG.", "one more device")
    check((vehicle(f, "00000000-0000-4000-8000-%012x" % 777), vehicle(f, more.id)["connected"]), (None, True), "has the place of the one that was seen last so long ago")
    last = Device(f, "00000000-0000-4000-8000-%012x" % 99999)
    check(last.ask("PING."), "PONG.", "one that is known")
    check(http(f, "GET", "/")[1]["devices"], {"online": 2, "known": 100000}, "and is online")
    check(f.stop(), 0, "it stops")
    f = start("--state", path)
    check((http(f, "GET", "/")[1]["devices"], vehicle(f, more.id)["connected"]), ({"online": 0, "known": 100000}, False), "a file of more")


@topic
def crowded():
    """Silent devices hold all descriptors that they can: people are served, and a device when another one goes."""
    f = start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    crowd = [socket.create_connection(("127.0.0.1", f.tcp), DEADLINE) for _ in range(200)]
    started.extend(crowd)
    check_that(wait_for(lambda: "75 devices are connected; others are closed, so that people are served" in f.errors()), "it is told: " + f.errors())
    for _ in range(10):
        check(http(f, "GET", "/health")[0], 200, "people are served")
    for one in crowd:
        one.close()
    check_that(wait_for(lambda: Device(f).ask("PING.") == "PONG."), "and so are devices, when there is room")
    check(f.errors().count("others are closed"), 1, "told once")


# ---- state ----

def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@topic
def state():
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    a, b, c = (Device(f, hello=True) for _ in range(3))
    a.ask(here("-52.5", "13.25", "RUNNING", "81"))
    a.ask(blob("x"))
    b.ask("GOTTA GO.")
    call = tell(f, a.id, "frequency", {"seconds": 15})
    a.command()
    a.reply("SURE, I WILL!")
    check(outcome(call)[0], 200, "a frequency")
    check(run("server", "--state", path, "--tcp-port", "0", "--rest-port", "0"),
          (1, "", "fleet: cannot use %s: another process has it; mend that, or choose another "
           "--state\n" % path), "a file is one server's")
    check_that(wait_for(lambda: {v["id"]: v["reportEvery"] for v in lines_of(path)}.get(a.id) == 15), "what has changed is written within a second or two")
    before = vehicle(f, a.id)
    f.stop(signal.SIGKILL)

    f = start("--state", path)
    check(vehicle(f, a.id), dict(before, connected=False, instance=None), "killed, and all is known as it was; but offline")
    check([vehicle(f, d.id)["connected"] for d in (b, c)], [False, False], "and so are the others")
    a = Device(f, a.id, hello=True)
    a.ask(here("1", "2", "RESTING", "80"))
    check(f.stop(), 0, "stopped, right after a change")
    last = {v["id"]: v for v in lines_of(path)}
    check((last[a.id]["charge"], last[a.id]["connected"], len(last)), (80, False, 3), "which was written, and the goodbye, too")

    with open(path, "a") as file:
        cut = file.write('{"id": "%s", "conn' % b.id)
    f = start("--state", path)
    check(f.errors(), "fleet: %s: cut off its last %d bytes, a line that was not written to its end\n" % (path, cut), "an unfinished line")
    check(vehicle(f, a.id)["charge"], 80, "and all the others hold")
    check((f.stop(), f.errors().count("\n")), (0, 1), "it stops")


@topic
def state_history():
    """A file of which more than half is history is written anew; who was not seen for a week is forgotten."""
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    d = Device(f, hello=True)
    d.ask(here(charge="1"))
    check(f.stop(), 0, "a first state")
    line = lines_of(path)[-1]
    old = dict(line, id=str(uuid.uuid4()), lastSeen="2026-01-01" + line["lastSeen"][10:])
    with open(path, "w") as file:
        for i in range(1200):
            file.write(json.dumps(dict(line, charge=i % 100)) + "\n")
        file.write(json.dumps(old) + "\n")
    f = start("--state", path)
    check(vehicle(f, d.id)["charge"], 99, "the last line holds")
    check(vehicle(f, old["id"]), None, "who was not seen for long is forgotten")
    d = Device(f, d.id, hello=True)
    check_that(wait_for(lambda: len(lines_of(path)) == 1), "the history goes when something is written")
    check(sorted(os.listdir(folder)), ["devices"], "and nothing is left beside the file")
    d.ask(here(charge="77"))
    check_that(wait_for(lambda: len(lines_of(path)) == 2 and lines_of(path)[1]["charge"] == 77), "then it grows again")
    check(f.stop(), 0, "it stops")


@topic
def state_damaged():
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    d = Device(f, hello=True)
    check(f.stop(), 0, "a state")
    good = json.dumps(lines_of(path)[-1])
    value = json.loads(good)
    refused = "%s:2: this line is no device; take it out, or move the file away to begin without it"
    table = [
        # the second of three lines
        "", "x", "{}", good[:-1], good + good, "[" + good + "]", good.replace('"id"', '"ID"'),
        json.dumps(dict(value, id="x")), json.dumps(dict(value, charge=101)), json.dumps(dict(value, charge=-1)), json.dumps(dict(value, charge="1")),
        json.dumps(dict(value, connected=None)), json.dumps(dict(value, running=1)), json.dumps(dict(value, position={"lat": 1})),
        json.dumps(dict(value, position={"lat": 91, "lon": 0})), json.dumps(dict(value, position={"lat": 1e7, "lon": 0})),
        json.dumps(dict(value, issues=None)), json.dumps(dict(value, issues=2**32)), json.dumps(dict(value, reportEvery=2**31)),
        json.dumps(dict(value, lastSeen="now")), json.dumps({k: v for k, v in value.items() if k != "lastSeen"}),
        json.dumps(dict(value, more="x" * 1024)),
    ]
    for line in table:
        text = good + "\n" + line + "\n" + good + "\n"
        with open(path, "w") as file:
            file.write(text)
        got = run("server", "--state", path, "--tcp-port", "0", "--rest-port", "0")
        check(got, (1, "", "fleet: " + refused % path + "\n"), "second line %r" % line[:60])
        with open(path) as file:
            check(file.read(), text, "and the file stays as it was")
    with open(path, "w") as file:
        file.write(good + "\n" + json.dumps(dict(value, charge=5, more={"from": "a later version"})) + "\n")
    f = start("--state", path)
    check(vehicle(f, d.id)["charge"], 5, "what else a line has is not looked at")
    f.stop()
    with open(path, "w") as file:
        file.write("\n".join([good, good[:9] + "\0" * 2000, "\0" * 9 + good[9:], json.dumps(dict(value, charge=6)), ""]))
    f = start("--state", path)
    check(vehicle(f, d.id)["charge"], 6, "lines in which a crash left zeros are left out")
    f.stop()

    with open(path, "w") as file:
        file.write("some text\nof mine")
    for where, status, text in [
        (path, 1, "%s holds no devices of fleet; choose another --state" % path),
        (folder, 1, "%s: it is a folder; mend that, or choose another --state" % folder),
        (os.path.join(folder, "not", "there"), 1,
         "not/there: its folder is not there; mend that, or choose another --state"),
        ("", 2, "--state needs a value"),
    ]:
        got, out, error = run("server", "--state", where, "--tcp-port", "0", "--rest-port", "0")
        check((got, out), (status, ""), "--state %s" % where)
        check_that(text in error, "--state %s says %r" % (where, error))
    os.chmod(path, 0o644)
    for text in ("some text\nof mine\n", "some text\n" + good[:20]):
        with open(path, "w") as file:
            file.write(text)
        got = run("server", "--state", path, "--tcp-port", "0", "--rest-port", "0")
        says = "fleet: %s holds no devices of fleet; choose another --state\n" % path
        check(got, (1, "", says), "another file: %r" % text)
        with open(path) as file:
            mode = os.stat(path).st_mode & 0o777
            check((file.read(), mode), (text, 0o644), "and it stays as it was")


@topic
def state_full():
    """A file that can't grow: said once, and once when it can; nothing is lost."""
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    if not hasattr(resource, "prlimit"):
        return skip("no prlimit here")
    first = Device(f, hello=True)
    check_that(wait_for(lambda: os.path.getsize(path) > 0), "a first line")
    before = os.path.getsize(path)
    resource.prlimit(f.pid, resource.RLIMIT_FSIZE, (before + 10, resource.RLIM_INFINITY))
    second = Device(f, hello=True)
    check_that(wait_for(lambda: f.errors()), "it is said that it can't be written")
    check_that(f.errors().startswith("fleet: cannot write %s: " % path), "and why: %r" % f.errors())
    for i in range(4):
        second.ask(here(charge=str(i)))
        time.sleep(0.6)
    check((f.errors().count("\n"), os.path.getsize(path)), (1, before), "once, and the file stays as it was")
    resource.prlimit(f.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    check_that(wait_for(lambda: f.errors().endswith("fleet: %s is written again\n" % path)), "then it can be")
    check({v["id"]: v["charge"] for v in lines_of(path)}, {first.id: None, second.id: 3}, "and nothing was lost")
    check((f.stop(), f.errors().count("\n")), (0, 2), "it stops")


# ---- the simulator ----

class Simulator:
    """fleet device ...: .said() is what it has shown so far; lines can be typed."""

    def __init__(self, port, *args, typed=subprocess.DEVNULL):
        self.out, self.err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([FLEET, "device", *args, "127.0.0.1", str(port)], stdin=typed, stdout=self.out, stderr=self.err)
        started.extend([self.out, self.err, self.process])

    def said(self, file=None):
        file = file or self.out
        return os.pread(file.fileno(), 1 << 20, 0).decode()

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def waits_for(self, text, why):
        check_that(wait_for(lambda: text in self.said()), "%s: %r shows in %r" % (why, text, self.said()))

    def ends(self, number=None):
        if number:
            self.process.send_signal(number)
        try:
            return self.process.wait(2 * DEADLINE)
        except subprocess.TimeoutExpired:
            return None


def online(f):
    return http(f, "GET", "/")[1]["devices"]["online"]


def known(f):
    return {v["id"]: v for v in http(f, "GET", "/vehicles?limit=500")[1]["vehicles"]}


@topic
def simulator():
    """Twenty devices, told each command; some leave; and all others are back after the server was restarted."""
    table = [
        # arguments of fleet device, exit status, a part of what is said on stderr
        (["127.0.0.1"], 2, "HOST and PORT are needed"),
        (["127.0.0.1", "0"], 2, "PORT 0: a whole number from 1 to 65535 is needed"),
        (["127.0.0.1", "80", "x"], 2, "x is a word too many"),
        (["--count", "100001", "127.0.0.1", "80"], 2, "--count 100001: a whole number from 1 to 100000 is needed"),
        (["--count", "2", "--id", str(uuid.uuid4()), "127.0.0.1", "80"], 2, "--id is for one device"),
        (["--id", "me", "127.0.0.1", "80"], 2, "--id me: a UUID is needed"),
        (["--cuont", "2"], 2, "--cuont: no such option"),
        (["--seed"], 2, "--seed needs a value"),
        (["a..b", "80"], 2, "a..b: there is no such host"),
    ]
    for args, status, text in table:
        got, out, error = run("device", *args)
        check((got, out), (status, ""), "fleet device %s: %s" % (" ".join(args), error))
        check_that(text in error, "fleet device %s says %r, not %r" % (" ".join(args), error, text))

    f = start()
    crowd = Simulator(f.tcp, "--count", "20", "--report-every", "1", "--seed", "1")
    check_that(wait_for(lambda: online(f) == 20), "all are online")
    check_that(wait_for(lambda: all(v["position"] for v in known(f).values())), "and have said where they are")
    first = known(f)
    for v in first.values():
        check_that(abs(v["position"]["lat"] - 52.52) < 0.07 and abs(v["position"]["lon"] - 13.405) < 0.11, "in the city: %r" % v["position"])
    full = [id for id in first if first[id]["charge"] > 5]
    for what, body, reply in [("frequency", {"seconds": 2}, "SURE, I WILL!"), ("command", {"message": "DANCE!"}, "I CAN'T, SORRY."),
                              ("frequency", {"seconds": 0}, "SURE, I WILL!"), ("frequency", {"seconds": 2}, "SURE, I WILL!"), ("turnOff", None, "DONE!"), ("turnOn", None, "DONE!")]:
        calls = [Call(f, "POST", "/vehicles/%s/%s" % (id, what), body) for id in full]
        check([(s, v.get("reply")) for s, v in (c.answer() for c in calls)], [(200, reply)] * len(full), "%s of each" % what)
    check_that(wait_for(lambda: all(known(f)[id]["position"] != first[id]["position"] for id in full)), "they move when they run")
    fine = [Call(f, "POST", "/vehicles/%s/command" % id, {"message": "HOW'S IT GOING?"}).answer()[1].get("reply", "") for id in full]
    check([t for t in fine if not re.fullmatch(r"FINE\. I'M HERE 52\.\d{6} 13\.\d{6}, RUNNING AND CHARGED AT \d+%\.", t)], [], "how each of them is going")

    check(http(f, "POST", "/vehicles/%s/disconnect" % full[0])[1].get("reply"), "SEE YA!", "one goes")
    check(f.stop(), 0, "the server ends")
    f = start("--tcp-port", str(f.tcp))
    check_that(wait_for(lambda: online(f) == 19), "all others are back: %r" % online(f))
    check_that(wait_for(lambda: all(v["position"] for v in known(f).values())), "with their positions")
    check(sorted(known(f)), sorted(set(first) - {full[0]}), "and they are the same, without the one that has gone")
    check(crowd.ends(signal.SIGTERM), 0, "exit status")
    said = crowd.said()
    for text in "devices      20, 19 online at the end, 1 said goodbye\n", "; %d commands; 0 not understood\n" % (1 + 7 * len(full)), "connections  39, 19 lost, ":
        check_that(text in said, "its sums: %r in %r" % (text, said))
    check_that(wait_for(lambda: online(f) == 0), "and all are offline")

    again = Simulator(f.tcp, "--count", "20", "--seed", "1", "--quiet")
    check_that(wait_for(lambda: online(f) == 20), "the same seed")
    check(sorted(known(f)), sorted(first), "makes the same devices")
    check((again.ends(signal.SIGINT), again.said(again.err)), (0, ""), "and quietly")


@topic
def typed():
    """One device: what it shows, and what is typed."""
    f = start()
    port = f.tcp
    f.stop()
    id = str(uuid.uuid4())
    one = Simulator(port, "--id", id.upper(), "--report-every", "0", typed=subprocess.PIPE)
    check_that(wait_for(lambda: "cannot connect to 127.0.0.1:%d: the server is offline (miss 1)" % port in one.said(one.err)), "no server: it says so")
    one.type("PING.")
    check_that(wait_for(lambda: "not connected; the line was not sent" in one.said(one.err)), "what is typed meanwhile is lost")
    f = start("--tcp-port", str(port))
    one.waits_for("< Connected to server\n> HELLO, I'M %s!\n< HI, NICE TO MEET YOU!\n" % id, "the server is there")
    for line, message, reply in [("PING.", None, "PONG."), ("ERROR", r"WTF! 125\nTraceback (most recent call last):\n", "DAAAMN! ISSUE REPORTED ON JIRA"),
                                 ("caf\u00e9 \x1b\"\\", 'caf\u00e9 \\u001b\\"\\\\', NOT_UNDERSTOOD), ("", "", NOT_UNDERSTOOD)]:
        shown = len(one.said())
        one.type(line)
        check_that(wait_for(lambda: "\n< " in one.said()[shown:]), "%r is answered" % line)
        lines = one.said()[shown:].split("\n")
        check_that(lines[0].startswith("> " + (line if message is None else message)), "typed %r, sent %r" % (line, lines[0]))
        check(lines[1:], ["< " + reply, ""], "received for %r" % line)
    check(vehicle(f, id)["issues"], 1, "the issue was reported")
    f.stop()
    f = start("--tcp-port", str(port))
    check_that(wait_for(lambda: one.said().count("< HI,") == 2 and "the connection was lost; connecting again" in one.said(one.err)), "the server was restarted")
    one.type("GOTTA GO.")
    check(one.ends(), 0, "goodbye")
    check(one.said()[-22:], "> GOTTA GO.\n< SEE YA!\n", "in these words")
    check(vehicle(f, id)["connected"], False, "and it is offline")

    empty = Simulator(f.tcp, "--seed", "2194")      # which begins without charge; its standard input has ended
    check_that(wait_for(lambda: online(f) == 1), "another one")
    id = re.search("HELLO, I'M (.*)!", empty.said())[1]
    check(http(f, "POST", "/vehicles/%s/turnOn" % id, {})[1].get("reply"), "I CAN'T, SORRY.", "an empty battery")
    check(http(f, "POST", "/vehicles/%s/disconnect" % id)[1].get("reply"), "SEE YA!", "it is sent away")
    check(empty.ends(), 0, "and ends")


def main():
    global failed, folder
    names = sys.argv[1:] or list(topics)
    if names == ["--list"]:
        print("\n".join(topics))
        return 0
    for name in names:
        if name not in topics:
            print("test.py: there is no topic %s; --list names them" % name, file=sys.stderr)
            return 2
    if not os.access(FLEET, os.X_OK):
        print("test.py: %s is not there; ./build.sh examples builds it" % FLEET, file=sys.stderr)
        return 1
    for name in names:
        folder = tempfile.mkdtemp(prefix="fleet-")
        try:
            topics[name]()
        except Exception as error:            # whatever it is, what was started is ended, and the other topics go on
            failed += 1
            trace = error.__traceback__
            while trace.tb_next and trace.tb_frame.f_code.co_name != name:
                trace = trace.tb_next
            print("%s:%d: %s: %s: %s" % (os.path.relpath(__file__), trace.tb_lineno, name, type(error).__name__, error), flush=True)
        finally:
            end_all()
            shutil.rmtree(folder, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
