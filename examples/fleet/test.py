#!/usr/bin/env python3
"""Tests of the fleet, from outside: programs are started, sockets opened.

    cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c
    examples/fleet/test.py [TOPIC...]        all of them unless told; --list names them

FLEET=... tests another program. Prints a line for what fails, FILE:LINE: why, what came and what should have; and last how
many checks passed, failed and were skipped. Exit status: 0 all passed or were skipped, 1 not.

Everything is on loopback, at ports that the system chooses, and what was started is ended by its process id."""

import json
import os
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
DEADLINE = float(os.environ.get("DEADLINE", "10"))      # seconds for what has to come; longer under sanitizers or valgrind

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
        self.stderr = tempfile.TemporaryFile("w+")
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
        self.stderr.seek(0)
        return self.stderr.read()

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


# ---- options ----

@topic
def options():
    table = [
        # arguments, exit status, a part of what is said on stderr
        ([], 2, "usage: fleet server"),
        (["sever"], 2, "sever: server or device has to come first; fleet --help tells more"),
        (["server", "--prot", "1"], 2, "--prot: fleet server has no such option; fleet --help lists them"),
        (["server", "x"], 2, "x: fleet server has no such option"),
        (["server", "--ip"], 2, "--ip needs a value"),
        (["server", "--ip", ""], 2, "--ip needs a value"),
        (["server", "--ip", "localhost"], 2, "--ip localhost: a numeric IPv4 address is needed, such as 127.0.0.1"),
        (["server", "--ip", "203.0.113.1", "--tcp-port", "0"], 1, "203.0.113.1 is not an address of this machine; choose another --ip"),
        (["server", "--tcp-port", "65536"], 2, "--tcp-port 65536: a whole number from 0 to 65535 is needed"),
        (["server", "--rest-port", "-1"], 2, "--rest-port -1: a whole number from 0 to 65535 is needed"),
        (["server", "--heartbeat", "0"], 2, "--heartbeat 0: a whole number from 1 to 86400 is needed"),
        (["server", "--heartbeat", "1.5"], 2, "--heartbeat 1.5: a whole number"),
        (["server", "--timeout", "3601"], 2, "--timeout 3601: a whole number from 1 to 3600 is needed"),
        (["server", "--workers", "65"], 2, "--workers 65: a whole number from 1 to 64 is needed"),
        (["server", "--state", "f", "--redis", "127.0.0.1:1"], 2, "--state with --redis: Redis keeps the devices; leave one of them out"),
        (["server", "--redis", "6379"], 2, "--redis 6379: HOST:PORT is needed, such as 127.0.0.1:6379"),
        (["server", "--redis", "127.0.0.1:0"], 2, "HOST:PORT is needed"),
        (["server", "--redis", ":6379"], 2, "HOST:PORT is needed"),
        (["server", "--redis", "no-such-host.invalid:6379"], 1, "no-such-host.invalid"),
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


# ---- the protocol ----

NOT_UNDERSTOOD = "SERVER COULD NOT PROCESS THE RECEIVED MESSAGE."
OK = "OK, THANKS!"
MAX_BLOB, MAX_COMMAND = 8192, 256


def here(lat="1", lon="2", running="RUNNING", charge="50", word="REPORT."):
    return "%s I'M HERE %s %s, %s AND CHARGED AT %s%%." % (word, lat, lon, running, charge)


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
        ("PING. ", NOT_UNDERSTOOD),
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
        (here() + " ", NOT_UNDERSTOOD),
        (here()[:-1], NOT_UNDERSTOOD),
        (here().replace(", ", ","), NOT_UNDERSTOOD),
        (here().replace("1 2", "1  2"), NOT_UNDERSTOOD),
        (here().replace("1 2", "1"), NOT_UNDERSTOOD),
        (here(charge="0"), OK), (here(charge="100"), OK), (here(charge="007"), OK),
        (here(charge="101"), NOT_UNDERSTOOD), (here(charge="-1"), NOT_UNDERSTOOD), (here(charge="5.5"), NOT_UNDERSTOOD),
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
        ("WTF! 1 \nx", NOT_UNDERSTOOD), ("WTF! 1x", NOT_UNDERSTOOD), ("WTF! \nx", NOT_UNDERSTOOD), ("WTF!", NOT_UNDERSTOOD),
        ("GOTTA GO", NOT_UNDERSTOOD),
        ("SURE, I WILL!", NOT_UNDERSTOOD),
        ("GOTTA GO.", "SEE YA!"),
    ]
    for message, reply in table:
        check(d.ask(message), reply, message[:60])
    check_that(d.ended(), "after GOTTA GO. the server closes")


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
        ("+1", "0", None), ("1.", "0", None), (".5", "0", None), ("--1", "0", None), ("- 1", "0", None), ("1e1", "0", None),
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

    for text, why in ("]", "no object"), ("x", "no object"), ("[{}]", "no object"), ("{)", "a wrong bracket"), ('{"a": "' + "x" * 70000, "64 KiB"):
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
    check_that(first.ended(), "and the older one is closed, without a word")
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
def commands():
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
        ("command", {"message": "KEEP ME POSTED EVERY 0 SECONDS."}, "KEEP ME POSTED EVERY 0 SECONDS.", "HMM", {}),
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

    calls = sent("A", "B", "C")
    for reply in "1", "2", "3":
        d.reply(reply)
    check(outcomes(calls), [(200, "1"), (200, "2"), (200, "3")], "in their order")

    calls = sent("HEY YOU, RUN!", "HOW'S IT GOING?", "HEY YOU, REST!", "KEEP ME POSTED EVERY 5 SECONDS.")
    d.reply("SURE, I WILL!")
    check(outcomes(calls), [(504, None)] * 3 + [(200, "SURE, I WILL!")], "those that a reply has passed by are not replied to any more")
    check_that(max(c.took for c in calls) < 2, "who waits for them is told so at once")

    calls = sent("HOW'S IT GOING?", "HEY YOU, RUN!", "A")
    fine = here(word="FINE.")
    for reply in fine, "DONE!", "DONE!":
        d.reply(reply)
    check(outcomes(calls), [(200, fine), (200, "DONE!"), (200, "DONE!")], "each one its own")

    calls = sent("HEY YOU, RUN!", "HEY YOU, REST!")
    d.reply(CANT)
    d.reply("DONE!")
    check(outcomes(calls), [(200, CANT), (200, "DONE!")], "sorry is an answer to the oldest one")
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
    check(outcome(call)[0], 409, "goes away")
    check_that(call.took < 0.9, "is answered at once")
    d = Device(f, d.id, hello=True)
    call = tell(f, d.id, "turnOn")
    d.command()
    newer = Device(f, d.id, hello=True)
    check(outcome(call)[0], 409, "and so is one whose device has connected anew")
    call = tell(f, d.id, "turnOn")
    check(newer.command(), "HEY YOU, RUN!", "the next one goes to the new connection")
    newer.reply("DONE!")
    check(outcome(call), (200, "DONE!"), "and is replied to from there")

    calls = [command(f, d.id, "C%d" % i) for i in range(20)]
    got = sorted(outcome(c)[0] for c in calls)
    check(got, [503] * 4 + [504] * 16, "of a device, sixteen commands can wait")


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
        return [text.count(b"HTTP/1.1 %d " % status) for status in (503, 504)]

    counts = [answers(person) for person in people]
    check((sum(c[0] for c in counts), sum(c[1] for c in counts)), (300 * 14 - 4096, 4096), "503, and 504")
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
    """100,000 are known; no more are taken."""
    path = os.path.join(folder, "devices")
    f = start("--state", path)
    d = Device(f, hello=True)
    check(f.stop(), 0, "a state")
    line = open(path).readlines()[-1]
    with open(path, "w") as file:
        for i in range(100000):
            file.write(line.replace(d.id, "00000000-0000-4000-8000-%012x" % i))
    f = start("--state", path)
    check(http(f, "GET", "/")[1]["devices"], {"online": 0, "known": 100000}, "a file of as many")
    check(Device(f).ask("PING."), NOT_UNDERSTOOD, "one more device")
    last = Device(f, "00000000-0000-4000-8000-%012x" % 99999)
    check(last.ask("PING."), "PONG.", "one that is known")
    check(http(f, "GET", "/")[1]["devices"], {"online": 1, "known": 100000}, "and is online")
    check(f.stop(), 0, "it stops")
    with open(path, "a") as file:
        file.write(line)
    got = run("server", "--state", path, "--tcp-port", "0", "--rest-port", "0", seconds=6 * DEADLINE)
    check_that(got[0] == 1 and ": this line is no device (100000 at most are kept)" in got[2], "a file of more: %r" % (got,))


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
          (1, "", "fleet: %s is in use by another fleet server; stop that one, or choose another file\n" % path), "a file is one server's")
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
    refused = "%s:2: this line is no device (100000 at most are kept); take it out, or move the file away to begin without it"
    table = [
        # the second of three lines
        "", "x", "{}", good[:-1], good + good, good + "\0", "[" + good + "]", good.replace('"id"', '"ID"'),
        json.dumps(dict(value, id="x")), json.dumps(dict(value, charge=101)), json.dumps(dict(value, charge=-1)), json.dumps(dict(value, charge="1")),
        json.dumps(dict(value, connected=None)), json.dumps(dict(value, running=1)), json.dumps(dict(value, position={"lat": 1})),
        json.dumps(dict(value, position={"lat": 91, "lon": 0})), json.dumps(dict(value, position={"lat": 1e-7, "lon": 0})),
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
        file.write("some text\nof mine")
    for where, status, text in [
        (path, 1, "%s ends with half a line that is no device; choose another file, or take it out" % path),
        (folder, 1, "%s is no file; choose another one" % folder),
        (os.path.join(folder, "not", "there"), 1, "not/there: its folder is not there; make it first"),
    ]:
        got, out, error = run("server", "--state", where, "--tcp-port", "0", "--rest-port", "0")
        check((got, out), (status, ""), "--state %s" % where)
        check_that(text in error, "--state %s says %r" % (where, error))


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
        except (Gone, OSError, subprocess.TimeoutExpired) as error:
            failed += 1
            trace = error.__traceback__
            while trace.tb_next and trace.tb_frame.f_code.co_name != name:
                trace = trace.tb_next
            print("%s:%d: %s: %s" % (os.path.relpath(__file__), trace.tb_lineno, name, error), flush=True)
        finally:
            end_all()
            shutil.rmtree(folder, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
