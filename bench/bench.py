#!/usr/bin/env python3
"""keyauth beside other servers, in one run; started by ./build.sh bench (bench/README.md)."""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import report
from peers import GROWTH_KEYS, IDLE, IP, MIX_KEYS, PEERS, REDIS, SCENARIOS, SERVER, STORES
from peers import WORKERS, Peer


# libmicrohttpd 0.9.75 with epoll loses an answer, rarely: its scenario is measured once more.
LOSES_ANSWERS = ["microhttpd"]


class AnswerLost(Exception):
    pass


class Load:
    """bench/load, which loads one server at a time."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["bench/load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer and words[1] in LOSES_ANSWERS:
            raise AnswerLost(words[1])
        if not answer:
            sys.exit(f"bench: bench/load ended at: {' '.join(map(str, words))}")
        return answer

    def run(self, name, slice_ms):
        requests, took, cpu, p50, p99, p999 = map(float, self.say("run", name, slice_ms))
        return {
            "requests": requests,
            "rate": requests / took,
            "cpu_us": cpu * 1e6 / requests,
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
        }


class Servers:
    """The servers of one scenario. They end with it."""

    def __init__(self, load, directory):
        self.load, self.directory, self.groups, self.targets = load, directory, [], []

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        for name in [] if failed else self.targets:
            self.load.say("close", name)
        for process in reversed(self.groups):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()

    def spawn(self, command, port):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        self.groups.append(process)
        until = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < until:
            for ip in (IP, "127.0.0.1"):
                with socket.socket() as s:
                    if s.connect_ex((ip, port)) == 0:
                        return process
            time.sleep(0.01)
        sys.exit(f"bench: it does not start: {' '.join(command)}")

    def redis(self):
        port = free_port()
        return (
            self.spawn(
                [
                    "redis-server",
                    "--port",
                    str(port),
                    "--bind",
                    "127.0.0.1",
                    "--protected-mode",
                    "no",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--dir",
                    self.directory,
                ],
                port,
            ),
            port,
        )

    def start(self, peer, close=False):
        """Returns its process and its port."""
        if peer.command == ["redis"]:
            return self.redis()
        port = free_port()
        places = {
            "@port": str(port),
            "@dir": self.directory,
            "@file": tempfile.mktemp(dir=self.directory),
        }
        if "127.0.0.1:@redis" in peer.command:
            places["127.0.0.1:@redis"] = f"127.0.0.1:{self.redis()[1]}"
        command = [places.get(word, word) for word in peer.command]
        if command[0] == "nginx":
            nginx_conf(self.directory, port)
        if command[0] == "bench/floor" and close:
            command[2:] = ["167", "close"]
        process = self.spawn(command, port)
        # nginx's worker comes a little after its socket; without it there is no CPU to count.
        while command[0] == "nginx" and process.poll() is None and len(pids(process)) < 2:
            time.sleep(0.01)
        return process, port

    def open(self, name, process, port, connections, shape):
        self.load.say("open", slug(name), port, connections, shape, *pids(process))
        self.targets.append(slug(name))

    def add(self, name, peer, scenario):
        if peer.command == ["append"]:
            self.load.say("append", slug(name), tempfile.mktemp(dir=self.directory), 142)
            self.targets.append(slug(name))
            return
        process, port = self.start(peer, scenario.shape == "close")
        # libmicrohttpd 0.9.75 hangs when a multiple of 128 connections is all there is.
        more = name == "microhttpd" and scenario.connections % 128 == 0
        shape = "set" if peer.command == ["redis"] else scenario.shape
        self.open(name, process, port, scenario.connections + more, shape)


def slug(name):
    return name.replace(" ", "-")


def free_port():
    with socket.socket() as s:
        s.bind((IP, 0))
        return s.getsockname()[1]


def pids(process):
    """Of its process group: nginx has two."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as f:
                group = f.read().rsplit(")", 1)[1].split()[2]
        except OSError:
            continue
        if int(group) == process.pid:
            found.append(entry)
    return found


NGINX = """daemon off; worker_processes 1; pid nginx.pid; events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type text/plain;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen {ip}:{port} backlog=4096; location / {{ return 200 "{answer}"; }} }}
}}
"""


def nginx_conf(directory, port):
    with open(f"{directory}/nginx.conf", "w") as f:
        f.write(NGINX.format(ip=IP, port=port, answer="0123456789" * 8 + "01234567"))


def memory_bytes(process):
    with open(f"/proc/{process.pid}/status") as f:
        return sum(int(kb) * 1024 for kb in re.findall(r"^Vm(?:RSS|Swap):\s+(\d+)", f.read(), re.M))


# ---- the scenarios ----


def take_turns(load, names, options):
    """Slices of each in turn. Each cycle begins with another; every other one goes backwards."""
    slices = {name: [] for name in names}
    for name in names:
        load.run(slug(name), options.warm_ms)
    for cycle in range(options.cycles):
        first = cycle // 2 % len(names)
        turn = [*names[first:], *names[:first]]
        for name in turn if cycle % 2 else reversed(turn):
            slices[name].append(load.run(slug(name), options.slice_ms))
    totals = {name: [float(v) for v in load.say("total", slug(name))] for name in names}
    return {"slices": slices, "totals": totals}


def run_peers(scenario, load, directory, options):
    with Servers(load, directory) as servers:
        names = [
            name
            for name, peer in scenario.peers.items()
            if options.present(name, peer, name == scenario.base)
        ]
        for name in names:
            servers.add(name, scenario.peers[name], scenario)
        return take_turns(load, names, options)


def run_mix(load, directory, options):
    """A server with 1,000,000 keys: asking, in turn with 1 ask to 4 logins by random keys."""
    with Servers(load, directory) as servers:
        process, port = servers.start(PEERS["keyauth"])
        servers.open("fill", process, port, 64, "ask")
        load.say("fill", "fill", options.keys(MIX_KEYS))
        servers.open("asks only", process, port, 64, "asks")
        servers.open("1 ask to 4 logins", process, port, 64, "mix")
        return take_turns(load, ["asks only", "1 ask to 4 logins"], options)


def run_idle(load, directory, options):
    """Two servers with 64 busy connections each; one has 15,000 idle ones, too."""
    with Servers(load, directory) as servers:
        for name in ("64 busy", "64 busy beside 15,000 idle"):
            process, port = servers.start(PEERS["keyauth"])
            servers.open(name, process, port, 64, "ask")
            load.run(
                slug(name), options.warm_ms
            )  # its buffers have been used before memory is read
        before = memory_bytes(process)
        servers.open("one", process, port, 1, "ask")
        load.say("fill", "one", 1)
        servers.open("idle", process, port, IDLE, "idle")
        memory = (memory_bytes(process) - before) / IDLE
        result = take_turns(load, ["64 busy", "64 busy beside 15,000 idle"], options)
    return result | {"bytes": memory}


def run_growth(load, directory, options):
    """A server from 0 to 10,000,000 keys, in turn with one whose keys expire as they come."""
    names = ["fixed table", "growing table"]
    slices = {name: [] for name in names}
    with Servers(load, directory) as servers:
        for name, ttl in zip(names, ("2", "0")):
            process, port = servers.start(Peer([*SERVER, "@port", "--ttl", ttl]))
            servers.open(name, process, port, 64, "ask")
        before, keys = memory_bytes(process), 0
        load.run("fixed-table", options.warm_ms)
        while keys < options.keys(GROWTH_KEYS):
            for name in names:
                slices[name].append(load.run(slug(name), options.slice_ms))
            keys += slices["growing table"][-1]["requests"]
        memory = (memory_bytes(process) - before) / keys
        totals = {name: [float(v) for v in load.say("total", slug(name))] for name in names}
    return {"slices": slices, "totals": totals, "bytes": memory}


def run_start(load, directory, options):
    """Exec to the line "listening on"; the stripped programs; the time to compile keyauth.h."""
    cc = os.environ.get("CC", "cc")
    median_ms, worst_ms = map(float, load.say("start", 50, "./server", "--port", 0))
    sizes, times = {}, []
    for name in ("server", "client"):
        subprocess.run(["strip", "-s", "-o", f"{directory}/{name}", name], check=True)
        sizes[name] = os.path.getsize(f"{directory}/{name}")
    with open(f"{directory}/one.c", "w") as f:
        f.write('#define KEYAUTH_IMPLEMENTATION\n#include "keyauth.h"\n')
    for _ in range(5):
        begin = time.monotonic()
        subprocess.run(
            [cc, "-std=c11", "-O2", "-I.", "-c", "-o", f"{directory}/one.o", f"{directory}/one.c"],
            check=True,
        )
        times.append(time.monotonic() - begin)
    return {
        "median_ms": median_ms,
        "worst_ms": worst_ms,
        "stripped": sizes,
        "compile_s": statistics.median(times),
    }


SPECIAL = {"mix": run_mix, "idle-15000": run_idle, "growth": run_growth, "start": run_start}


def measure(name, directory, options):
    run, load = SPECIAL.get(name), Load()
    if run:
        return run(load, directory, options)
    return run_peers(SCENARIOS[name], load, directory, options)


def at_least_1(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 1 on is needed")
    return int(text)


def names_of(known):
    """The type of an option that takes some of these names, separated by commas."""

    def parse(text):
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no such name: {', '.join(unknown)}; there are: {', '.join(known)}"
            )
        return text.split(",")

    return parse


def main():
    # What it has started ends with it: the servers have sessions of their own.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit("bench: interrupted"))
    everything = [*SCENARIOS, *SPECIAL]
    parser = argparse.ArgumentParser(prog="./build.sh bench", description=__doc__)
    parser.add_argument(
        "--cycles",
        type=at_least_1,
        default=40,
        help="turns of each server in a scenario (default 40)",
    )
    parser.add_argument(
        "--slice-ms", type=at_least_1, default=200, help="how long a turn is, in ms (default 200)"
    )
    parser.add_argument(
        "--warm-ms",
        type=at_least_1,
        default=1000,
        help="a turn before the first, not counted, in ms (default 1000)",
    )
    parser.add_argument(
        "--only",
        type=names_of(everything),
        default=everything,
        help="these scenarios, separated by commas (default all)",
    )
    parser.add_argument(
        "--peers",
        type=names_of(list(PEERS | STORES | REDIS | WORKERS)),
        help="these peers, separated by commas (default all that are installed)",
    )
    parser.add_argument(
        "--small", action="store_true", help="a hundredth of the keys of mix and growth, to try it"
    )
    parser.add_argument(
        "--out", default="bench/results", help="where the results go (default bench/results)"
    )
    options = parser.parse_args()
    options.keys = lambda n: n // 100 if options.small else n
    missing = set()

    def present(name, peer, is_base):
        if options.peers and name not in options.peers and not is_base:
            return False
        program = "redis-server" if peer.needs == "redis-server" else peer.command[0]
        if peer.command == ["append"] or shutil.which(program):
            return True
        if name not in missing:
            print(
                f"bench: {name} is left out: there is no {program}; "
                f"Debian's package {peer.needs} brings it",
                file=sys.stderr,
            )
        missing.add(name)
        return False

    options.present = present
    results = {}
    # Here and not in /tmp, which may be in memory: the journal's scenarios need a disk.
    with tempfile.TemporaryDirectory(dir="bench", prefix="disk-") as directory:
        for name in options.only:
            print(f"bench: {name}", file=sys.stderr, flush=True)
            try:
                results[name] = measure(name, directory, options)
            except AnswerLost as lost:
                print(f"bench: {lost} lost an answer: {name} once more", file=sys.stderr)
                results[name] = measure(name, directory, options)
    report.write(results, options)


if __name__ == "__main__":
    main()
