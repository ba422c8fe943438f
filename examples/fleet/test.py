#!/usr/bin/env python3
"""Tests of the fleet, from outside: programs are started, sockets opened.

    cc -O2 -pthread -I. -o examples/fleet/fleet examples/fleet/fleet.c
    examples/fleet/test.py [TOPIC...]        all of them unless told; --list names them

FLEET=... tests another program. Prints a line for what fails, FILE:LINE: why, what came and what should have; and last how
many checks passed, failed and were skipped. Exit status: 0 all passed or were skipped, 1 not.

Everything is on loopback, at ports that the system chooses, and what was started is ended by its process id."""

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
        self.stderr = tempfile.TemporaryFile()
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
        return os.pread(self.stderr.fileno(), 1000000, 0).decode()      # its own place in the file is the program's, too

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


class Hooks:
    """A server of webhooks: .url, .got (what was posted)."""

    def __init__(self):
        self.got = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d/hook" % self.listener.getsockname()[1]
        started.append(self)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection, connection.makefile("rb") as lines:
                while lines.readline().startswith(b"POST "):
                    size = 0
                    while (line := lines.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            size = int(line.split(b":")[1])
                    self.got += json.loads(lines.read(size))["events"]
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except OSError:
            pass

    def of(self, id, change):
        return [one for one in self.got if one["vehicle"]["id"] == id and change in one["changes"]]

    def close(self):
        self.listener.close()


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


def all_see(fleets, device, why, seconds=None, **wanted):
    if wait_for(lambda: all(sees(one, device, **wanted) for one in fleets), seconds):
        return check(True, True, why)
    known = [vehicle(one, device.id) for one in fleets]
    return check([one and {name: one[name] for name in wanted} for one in known], [wanted] * len(fleets), why)


def commands(fleet, device, word="turnOn", message="HEY YOU, RUN!", reply="DONE!"):
    """Command it there, and have it reply: what the one who commanded is answered."""
    call = Call(fleet, "POST", "/vehicles/%s/%s" % (device.id, word))
    check(device.command(), message, "a command arrives")
    device.reply(reply)
    status, answer = call.answer()
    return status, answer.get("reply")


@topic
def instances():
    if not have("redis-server", "haproxy"):
        return
    redis = Redis()
    a, b = both = instances_of(redis, 2, "--timeout", "1")
    proxy = Proxy(a, b)
    check({Device(proxy.tcp).server for _ in range(4)}, {a.id, b.id}, "devices are handed to both instances")
    check({http(proxy.rest, "GET", "/")[1]["instance"] for _ in range(4)}, {a.id, b.id}, "people are handed to both instances")

    here, there = Device(a, hello=True), Device(b, hello=True)
    all_see(both, here, "a device at A is seen everywhere", connected=True, instance=a.id)
    all_see(both, there, "a device at B is seen everywhere", connected=True, instance=b.id)
    check(here.ask(HERE_IS % ("52.5 13.25", "RESTING", 80)), "OK, THANKS!", "a report")
    all_see(both, here, "a report at A is seen everywhere", position={"lat": 52.5, "lon": 13.25}, charge=80, running=False)
    for fleet, device in (b, here), (a, there), (a, here), (proxy.rest, here), (proxy.rest, here):
        check(commands(fleet, device), (200, "DONE!"), "a command, and its reply")
    all_see(both, here, "what the command changed is seen everywhere", running=True)
    check(commands(b, here, "turnOff", "HEY YOU, REST!", "I CAN'T, SORRY."), (200, "I CAN'T, SORRY."), "a reply that says no")

    late = Call(b, "POST", "/vehicles/%s/turnOn" % here.id)
    check(late.answer()[0], 504, "no reply in time, across instances")
    here.command(), here.reply("DONE!")

    newer = Device(b, here.id, hello=True)
    check_that(here.ended(), "the newer connection wins, A to B")
    all_see(both, newer, "it is at B now", connected=True, instance=b.id)
    newest = Device(a, here.id, hello=True)
    check_that(newer.ended(), "the newer connection wins, B to A")
    all_see(both, newest, "it is at A again", connected=True, instance=a.id)
    check(commands(b, newest), (200, "DONE!"), "a command finds the newest connection")

    newest.close()
    all_see(both, newest, "offline is told everywhere", connected=False, instance=None)
    check(http(b, "POST", "/vehicles/%s/turnOn" % here.id)[0], 409, "a command to who is offline")
    check(a.stop(), 0, "A is stopped")
    check(there.ask("PING."), "PONG.", "B goes on")
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
        device.ask(HERE_IS % ("%d.5 -%d.000001" % (i % 90, i % 180), "RUNNING", i % 101))
    for device in devices[::3]:
        device.close()
    for device in devices[::3]:
        all_see([a, b], device, "offline", connected=False)
    [c] = instances_of(redis, 1)
    check_that(wait_for(lambda: http(c, "GET", "/")[1]["devices"] == {"online": 200, "known": 300}), "a new instance knows all devices")
    check([vehicle(c, one.id) for one in devices], [vehicle(a, one.id) for one in devices], "and all of them")
    check(commands(c, devices[1]), (200, "DONE!"), "it can command them")
    wrong = start("--redis", redis.address.replace("secret", "wrong"))
    check_that(wait_for(lambda: "WRONGPASS" in wrong.errors()), "a wrong password is told: %s" % wrong.errors())
    check(state_of(wrong), "away", "and of no use")


@topic
def killed():
    if not have("redis-server", "haproxy"):
        return
    redis, hooks = Redis(), Hooks()
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
    for device in at_a:
        check_that(device.ended(), "its device loses the connection")
        again = Device(proxy.tcp, device.id, hello=True)
        check(again.server, b.id, "it is at another instance, which says so")
        all_see([b, c], again, "and is online there", connected=True, instance=b.id)
    all_see([b, c], lost, "who does not come back goes offline", connected=False)
    check_that(time.monotonic() - at < 10, "within 10 s")
    check_that(wait_for(lambda: hooks.of(lost.id, "offline")), "offline is forwarded")
    time.sleep(2)
    check(len(hooks.of(lost.id, "offline")), 1, "by one instance only")
    check([hooks.of(one.id, "offline") for one in at_a], [[]] * len(at_a), "who came back in time was never offline")
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
    check_that(moved.ended(), "the older connection is closed")
    check_that(stays.ended(), "who was made offline has to connect again")
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
    check(stays.ask(HERE_IS % ("1.5 2.5", "RUNNING", 7)), "OK, THANKS!", "own devices are served meanwhile")
    check(commands(a, stays), (200, "DONE!"), "and can be commanded")
    began = time.monotonic()
    check(http(a, "POST", "/vehicles/%s/turnOn" % other.id)[0], 503, "a command to a device elsewhere")
    check_that(time.monotonic() - began < 1, "is refused at once")
    check_that(sees(a, other, connected=True, instance=b.id), "it is as it was last known")
    check_that(wait_for(lambda: say(fleets, 1 + 2 * lose, "is away")), "it is said that Redis is away")
    redis.start(lose)
    check_that(wait_for(lambda: [state_of(one) for one in fleets] == ["up"] * 2), "it is told that Redis is back")
    all_see(fleets, stays, "what was reported meanwhile", connected=True, instance=a.id, position={"lat": 1.5, "lon": 2.5}, charge=7, running=True)
    all_see(fleets, leaves, "who went meanwhile", connected=False)
    all_see(fleets, fleeting, "who came and went meanwhile", connected=False)
    all_see(fleets, fresh, "who came meanwhile", connected=True, instance=b.id)
    all_see(fleets, other, "who did nothing", connected=True, instance=b.id)
    all_see(fleets, moved, "who went over meanwhile", connected=True, instance=b.id)
    check_that(moves.ended(), "its older connection is closed")
    for device in moved, stays, fresh, other:
        check(device.ask("PING."), "PONG.", "nobody else was disconnected")
        check(commands(b if device.server == a.id else a, device), (200, "DONE!"), "calls across instances are back")
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
    known = [http(one, "GET", "/vehicles?limit=500")[1]["vehicles"] for one in (a, b, c)]
    check(known[1:], known[:1] * 2, "a new instance knows all, too")
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
    strangers = [str(uuid.uuid4()) for _ in range(4)]
    redis.ask("SET", "fleet:device:" + strangers[0], "x")
    redis.ask("HSET", "fleet:device:" + strangers[1], "owner", "x")
    redis.ask("HSET", "fleet:device:" + strangers[2], "owner", "x" * 99, "version", "1", "device", "{}")
    redis.ask("HSET", "fleet:device:" + strangers[3], "owner", "x", "version", "1", "device", "{}")
    redis.ask("HSET", "fleet:device:x", "owner", "x", "version", "1", "device", "{}")
    [c] = instances_of(redis, 1)
    check_that(wait_for(lambda: "refuses: WRONGTYPE" in c.errors()), "a key that is no hash is told: " + c.errors())
    check([vehicle(c, id) for id in strangers], [None] * 4, "what can't be read is left out")
    redis.ask("DEL", *("fleet:device:" + id for id in strangers))
    check(commands(b, device), (200, "DONE!"), "all goes on")
    all_see([a, b, c], device, "as if nothing had been", connected=True, instance=a.id, running=True)

    for word in ("DEL", key), ("FLUSHALL",):
        redis.ask(*word)
        check(device.ask(HERE_IS % ("1 2", "RUNNING", len(word[0]))), "OK, THANKS!", "a report after " + word[0])
        all_see([a, b, c], device, "what is deleted is there again", charge=len(word[0]))
    blob = "\u0001" * 8192
    check(device.ask("WTF! %d\n%s" % (len(blob), blob)), "DAAAMN! ISSUE REPORTED ON JIRA", "the longest change there is")
    all_see([a, b, c], device, "fits", issues=1)

    redis.ask("CONFIG", "SET", "maxmemory", "1")
    check(device.ask(HERE_IS % ("1 2", "RUNNING", 50)), "OK, THANKS!", "a report when Redis is full")
    check_that(wait_for(lambda: "refuses: " in a.errors() and "OOM" in a.errors()), "that it is full is told: " + a.errors())
    late = Device(b, device.id, hello=True)
    check_that(sees(c, device, charge=8, instance=a.id), "others don't know it")
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    all_see([a, b, c], late, "what could not be put is put when it can be", connected=True, instance=b.id)
    check_that(device.ended(), "so the newer connection wins after all")
    check(other.ask("PING."), "PONG.", "and all goes on")


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
            self.connection.send(HERE_IS % (self.place(), "RUNNING", self.random.randrange(101)))

    def place(self):
        return "%d %d" % (self.random.randrange(-90, 91), self.random.randrange(-180, 181))

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
    known = [http(one, "GET", "/vehicles?limit=500")[1]["vehicles"] for one in fleets]
    check(known[1:], known[:1] * 2, "and on all about it")


# ---- the protocol ----

NOT_UNDERSTOOD = "SERVER COULD NOT PROCESS THE RECEIVED MESSAGE."
HERE_IS = "REPORT. I'M HERE %s, %s AND CHARGED AT %s%%."


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
