#!/usr/bin/env python3
"""Two instances of examples/fleet over one Redis, with simulated devices on both; run by ./build.sh bench-fleet (bench/README.md)."""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import report

FLEET = os.environ.get("FLEET", "examples/fleet/fleet")
START_S = 60                                    # for all devices to be online, at both instances
FLIGHTS = (1, 64)                               # commands that wait at once
TICKS = os.sysconf("SC_CLK_TCK")
SECOND = re.compile(r"fleet: (\d+) online, (\d+) messages/s sent, (\d+) received, p99 ([\d.]+) ms")
SUMS = re.compile(r"devices +(\d+), (\d+) online at the end, (\d+) said goodbye\nmessages .*; (\d+) commands; (\d+) not understood\n"
                  r"replies .*\nconnections +(\d+), (\d+) lost, (\d+) refused")
LUA = """local all = {}
function init(args)
    for id in io.lines(os.getenv("FLEET_IDS")) do
        all[#all + 1] = wrk.format("POST", "/vehicles/" .. id .. "/command", { ["Content-Type"] = "application/json" }, '{"message":"HOW\\'S IT GOING?"}')
    end
    math.randomseed(os.time())
end
function request() return all[math.random(#all)] end
"""
passed = 0


def check(condition, what):
    global passed
    if not condition:
        raise SystemExit(f"bench/fleet.py: {what}\n{passed} passed, 1 failed, 0 skipped")
    passed += 1


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


class Process:
    """A program; what it says is kept, its lines on stderr with their times. None of them fills a pipe."""

    def __init__(self, *command):
        self.command = command
        self.out, self.lines = [], []
        self.p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.readers = [threading.Thread(target=self.read, args=args, daemon=True) for args in
                        ((self.p.stdout, lambda line: self.out.append(line)), (self.p.stderr, lambda line: self.lines.append((time.monotonic(), line))))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(file, keep):
        for line in file:
            keep(line)

    def said(self):
        return "".join(self.out)

    def says(self, pattern):
        """Wait for it on stdout."""
        until = time.monotonic() + 10
        while not re.search(pattern, self.said()):
            check(self.p.poll() is None and time.monotonic() < until, f"{' '.join(self.command)} does not start: {self.said()} {self.lines}")
            time.sleep(0.01)
        return re.search(pattern, self.said())

    def cpu_s(self):
        with open(f"/proc/{self.p.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self):
        with open(f"/proc/{self.p.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self):
        if self.p.poll() is None:
            self.p.terminate()
        status = self.p.wait(30)
        for reader in self.readers:
            reader.join()
        return status


class Instance(Process):
    def __init__(self, redis):
        super().__init__(FLEET, "server", "--tcp-port", "0", "--rest-port", "0", "--redis", f"127.0.0.1:{redis}")
        found = self.says(r"instance (\S+)\ndevices on [\d.]+:(\d+)\npeople on http://[\d.]+:(\d+)/")
        self.id, self.tcp, self.rest = found[1], int(found[2]), int(found[3])

    def health(self):
        return get(self.rest, "/")


class Fleet:
    """Redis, two instances, and, once they are wanted, devices on each."""

    def __enter__(self):
        self.dir, self.all = tempfile.mkdtemp(prefix="bench-fleet-"), []
        return self

    def __exit__(self, kind, error, trace):
        for process in reversed(self.all):
            if process.p.poll() is None:
                process.p.kill()
            process.p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def begin(self, process):
        self.all.append(process)
        return process

    def start(self):
        port = free_port()
        self.redis = self.begin(Process("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", self.dir, "--save", "", "--appendonly", "no"))
        self.redis.says("Ready to accept connections")
        self.instances = [self.begin(Instance(port)) for _ in range(2)]
        until = time.monotonic() + 10
        while any(i.health()["redis"] != "up" for i in self.instances):
            check(time.monotonic() < until, "the instances don't come to Redis")
            time.sleep(0.05)

    def devices(self, each, report_s):
        self.each = each
        self.crowds = [self.begin(Process(FLEET, "device", "--count", str(each), "--report-every", str(report_s), "--seed", str(n), "127.0.0.1", str(i.tcp)))
                       for n, i in enumerate(self.instances)]
        until = time.monotonic() + START_S
        while not self.all_online():
            check(time.monotonic() < until, f"not all devices come online: {[i.health() for i in self.instances]}")
            time.sleep(0.1)

    def all_online(self):
        return all(i.health()["devices"]["online"] == 2 * self.each for i in self.instances)

    def ids(self, seen_by, of):
        """A file of the ids of the devices of an instance, as another one knows them."""
        path, ids = "/vehicles?limit=500", []
        while path:
            page = get(seen_by.rest, path)
            ids += [v["id"] for v in page["vehicles"] if v["instance"] == of.id]
            path = page["next"]
        check(len(ids) == self.each, f"one instance knows {len(ids)} of the {self.each} devices of another")
        name = f"{self.dir}/{of.id}"
        with open(name, "w") as f:
            f.write("\n".join(ids) + "\n")
        return name

    def window(self, seconds):
        """What devices say, and what it costs, for so long."""
        servers = self.instances + [self.redis] + self.crowds
        begun, before = time.monotonic(), [p.cpu_s() for p in servers]
        time.sleep(seconds)
        ended, cpu = time.monotonic(), [p.cpu_s() - b for p, b in zip(servers, before)]
        lines = [[SECOND.match(line) for at, line in crowd.lines if begun + 1 < at <= ended] for crowd in self.crowds]
        check(all(lines) and all(all(of) for of in lines), "the devices tell their figures")
        sent = sum(statistics.mean(int(m[2]) for m in of) for of in lines)
        messages = sent * (ended - begun)
        return {"rate": sent, "instance_us": 1e6 * (cpu[0] + cpu[1]) / messages, "redis_us": 1e6 * cpu[2] / messages,
                "device_us": 1e6 * (cpu[3] + cpu[4]) / messages, "cores": sum(cpu) / (ended - begun),
                "reply_p99_ms": statistics.median(float(m[4]) for of in lines for m in of)}

    def command(self, asked, of, flight, seconds):
        """Commands to devices of one instance, asked for at another, or the same."""
        script = f"{self.dir}/command.lua"
        with open(script, "w") as f:
            f.write(LUA)
        done = subprocess.run(["wrk", "--latency", "-t1", f"-c{flight}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{asked.rest}"],
                              env=dict(os.environ, FLEET_IDS=self.ids(asked, of)), capture_output=True, text=True)
        wrong = re.findall(r"^ *(?:Non-2xx|Socket errors).*$", done.stdout, re.M)
        ms = {part: float(n) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit] for part, n, unit in re.findall(r"^ +(50|99)% +([\d.]+)(us|ms|s|m)$", done.stdout, re.M)}
        check(done.returncode == 0 and len(ms) == 2 and not wrong and not done.stderr, f"commands were not answered: {wrong or done.stdout + done.stderr}")
        return {"rate": float(re.search(r"^Requests/sec: +([\d.]+)", done.stdout, re.M)[1]), "p50_ms": ms["50"], "p99_ms": ms["99"],
                "answered": int(re.search(r"^ +(\d+) requests in", done.stdout, re.M)[1])}

    def end(self, answered):
        """All that was there has been there to the end, and ends in order."""
        check(self.all_online(), f"a device has gone offline: {[i.health() for i in self.instances]}")
        commands = 0
        for crowd in self.crowds:
            check(crowd.end() == 0, "the devices' exit status")
            sums = SUMS.search(crowd.said())
            check(sums, f"the devices tell no sums: {crowd.said()}")
            count, online, gone, told, strange, connections, lost, refused = map(int, sums.groups())
            check((online, gone, strange, connections, lost, refused) == (count, 0, 0, count, 0, 0), f"devices were lost: {crowd.said()}")
            commands += told
        check(commands >= answered, f"{answered} commands were answered, and {commands} were received")
        for instance in self.instances:
            check(instance.end() == 0, "an instance's exit status")
            check(not instance.lines, f"an instance complains: {instance.lines}")
        self.redis.end()


def measure(each, report_s, window_s, command_s):
    """One round of one load, everything started afresh."""
    with Fleet() as fleet:
        fleet.start()
        time.sleep(1)
        empty = [p.memory() for p in fleet.instances + [fleet.redis]]
        fleet.devices(each, report_s)
        time.sleep(2)
        known = [p.memory() for p in fleet.instances + [fleet.redis]]
        result = fleet.window(window_s)
        result["instance_bytes"] = (known[0] + known[1] - empty[0] - empty[1]) / 2 / (2 * each)
        result["redis_bytes"] = (known[2] - empty[2]) / (2 * each)
        here, other = fleet.instances
        answered = 0
        for where, of in ("other", other), ("own", here):
            for flight in FLIGHTS:
                got = fleet.command(here, of, flight, command_s)
                answered += got.pop("answered")
                result.update({f"{where}_{flight}_{key}": value for key, value in got.items()})
        fleet.end(answered)
        return result


ROWS = [("rate", "messages/s of the devices, each replied to"), ("instance_us", "CPU µs a message: both instances"), ("redis_us", "CPU µs a message: Redis"),
        ("device_us", "CPU µs a message: the simulated devices"), ("cores", "cores busy, of all of it"), ("reply_p99_ms", "from a message to its reply: p99 ms")]
ROWS += [(f"{where}_{flight}_{key}", f"commands to devices of {what}, {flight} in flight: {unit}") for where, what in (("other", "the other instance"), ("own", "the instance asked"))
         for flight in FLIGHTS for key, unit in (("rate", "commands/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"))]
ROWS += [("instance_bytes", "an instance's memory, bytes a device known (half of them connected to it)"), ("redis_bytes", "Redis's memory, bytes a device")]


def table(head, results):
    lines = [head, "", "| | " + " | ".join(f"a report every {s} s" for s in results) + " |", "|---|" + "---:|" * len(results)]
    lines += [f"| {what} | " + " | ".join(report.number(statistics.median(r[key] for r in rounds)) for rounds in results.values()) + " |" for key, what in ROWS]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="./build.sh bench-fleet", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=5000, help="on each of the two instances")
    parser.add_argument("--report-every", type=int, nargs="+", default=[10, 1], metavar="S", help="seconds; a load each")
    parser.add_argument("--seconds", type=int, default=10, help="of devices alone; of each run of commands, half of it")
    parser.add_argument("--out", default="bench/results")
    parser.add_argument("--ci", action="store_true", help="one short round, whose figures are printed and not kept: all must hold")
    o = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    if not os.access(FLEET, os.X_OK):
        sys.exit(f"bench/fleet.py: {FLEET} is not there; ./build.sh examples builds it")
    for program in "redis-server", "wrk":
        if not shutil.which(program):
            sys.exit(f"bench/fleet.py: there is no {program}; Debian's package of that name brings it")
    if o.ci:
        result = measure(o.devices, o.report_every[0], 4, 2)
        print("".join(f"{what}: {report.number(result[key])}\n" for key, what in ROWS) + f"{passed} passed, 0 failed, 0 skipped")
        return
    results = {report_s: [] for report_s in o.report_every}
    for i in range(o.rounds):
        for report_s, rounds in results.items():
            rounds.append(measure(o.devices, report_s, o.seconds, max(1, o.seconds // 2)))
            print(f"{i + 1} a report every {report_s} s: " + ", ".join(f"{k} {report.number(v)}" for k, v in rounds[i].items()), flush=True)
    about = report.about(rounds=o.rounds, devices=2 * o.devices, seconds=o.seconds)
    redis = re.search(r"v=(\S+)", report.first_line("redis-server", "--version"))[1]
    head = (f"{report.head(about)}, Redis {redis}. {2 * o.devices:,} devices, half of them on each of two instances. "
            f"Medians of {o.rounds} rounds.")
    os.makedirs(o.out, exist_ok=True)
    with open(f"{o.out}/fleet.md", "w") as f:
        f.write(table(head, results))
    with open(f"{o.out}/fleet.json", "w") as f:
        json.dump(about | {"loads": results}, f, indent=1)
        f.write("\n")
    print(table(head, results), end="")


main()
