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
    print("%s: %s: got %r, want %r" % (place(), why, got, want), flush=True)
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


def end_all():
    for one in reversed(started):
        if isinstance(one, subprocess.Popen):
            if one.poll() is None:
                one.kill()
            one.wait()
            if one.stdout:
                one.stdout.close()
        else:
            one.close()
    started.clear()


def run(*args, seconds=None, **more):
    """Run fleet to its end: (exit status, stdout, stderr)."""
    done = subprocess.run([FLEET, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds or DEADLINE, **more)
    return done.returncode, done.stdout, done.stderr


class Fleet:
    """A fleet server: .tcp, .rest (ports), .id (instance), .pid, .errors() (its stderr so far)."""

    def __init__(self, *args, **more):
        self.stderr = tempfile.TemporaryFile("w+")
        started.append(self.stderr)
        ports = [] if "--tcp-port" in args else ["--tcp-port", "0"]
        ports += [] if "--rest-port" in args else ["--rest-port", "0"]
        self.process = spawn([FLEET, "server", *ports, *args], stdout=subprocess.PIPE, stderr=self.stderr, **more)
        self.pid = self.process.pid
        said = "".join(self.process.stdout.readline().decode() for _ in range(3))
        found = re.fullmatch(r"instance (\S+)\ndevices on [\d.]+:(\d+)\npeople on http://[\d.]+:(\d+)/docs\n", said)
        if not found:
            raise Gone("fleet server %s: %r %r" % (" ".join(args), said, self.errors()))
        self.id, self.tcp, self.rest = found[1], int(found[2]), int(found[3])

    def errors(self):
        self.stderr.seek(0)
        return self.stderr.read()

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
HERE_IS = "REPORT. I'M HERE %s, %s AND CHARGED AT %s%%."


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
        (["127.0.0.1"], 2, "IP and PORT are needed"),
        (["127.0.0.1", "0"], 2, "PORT 0: a whole number from 1 to 65535 is needed"),
        (["127.0.0.1", "80", "x"], 2, "x is a word too many"),
        (["--count", "100001", "127.0.0.1", "80"], 2, "--count 100001: a whole number from 1 to 100000 is needed"),
        (["--count", "2", "--id", str(uuid.uuid4()), "127.0.0.1", "80"], 2, "--id is for one device"),
        (["--id", "me", "127.0.0.1", "80"], 2, "--id me: a UUID is needed"),
        (["--cuont", "2"], 2, "--cuont: no such option"),
        (["--seed"], 2, "--seed needs a value"),
        (["no-such-host.invalid", "80"], 1, "no-such-host.invalid: "),
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
                              ("command", {"message": "KEEP ME POSTED EVERY 0 SECONDS."}, "I CAN'T, SORRY."), ("turnOff", None, "DONE!"), ("turnOn", None, "DONE!")]:
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
    time.sleep(1.2)                 # its sums are those of its last whole second
    check(crowd.ends(signal.SIGTERM), 0, "exit status")
    said = crowd.said()
    for text in "devices      20, 19 online at the end, 1 said goodbye\n", "; %d commands; 0 not understood\n" % (1 + 6 * len(full)), "connections  39, 19 lost, ":
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
