"""The relay beside bench/relay.go under one load, examples/relay's own; run by ./build.sh bench-relay (bench/README.md)."""

import argparse
import datetime
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time

SERVERS = {"keyauth": ["examples/relay", "server", "--port", "0"], "go": ["bench/relay", "-port", "0"]}
LOADS = [(1000, 1), (64, 16), (16, 64)]         # connections, and messages of each that wait at once
HELD = 10000                                    # Go has a table of 20,000 descriptors for all
CPU_MARK, MEMORY_MARK = 4, 8


def ask(port):
    with socket.create_connection(("127.0.0.1", port), 30) as s, s.makefile("rb") as lines:
        s.sendall(b"stats\n")
        return json.loads(lines.readline().removeprefix(b"stats "))


class Server:
    def __init__(self, name):
        self.process = subprocess.Popen(SERVERS[name], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def load(port, *options):
    return subprocess.Popen(["examples/relay", "load", "--server", f"127.0.0.1:{port}", *map(str, options)],
                            stdout=subprocess.PIPE, text=True)


def finish(process):
    """What the load says at its end; it fails if a single message had no ok."""
    said = process.communicate()[0]
    if process.returncode != 0:
        sys.exit(f"bench/relay.py: the load failed with {process.returncode}:\n{said}")
    return said


def run_fast(name, clients, ahead, messages):
    with Server(name) as server:
        options = ("--clients", clients, "--window", 0, "--delay", "0..0", "--ahead", ahead, "--messages")
        finish(load(server.port, *options, ahead))          # warmed: what is allocated once is there
        before = ask(server.port)
        said = finish(load(server.port, *options, max(messages // clients, ahead)))
        after = ask(server.port)
    return figures(said) | {"cpu_us": (after["cpu_us"] - before["cpu_us"]) / (after["messages"] - before["messages"])}


def run_held(name):
    with Server(name) as server:
        before = ask(server.port)["memory"]
        process = load(server.port, "--clients", HELD, "--window", 3, "--delay", "8..8")
        held = 0
        while process.poll() is None:
            stats = ask(server.port)
            if stats["active"] == stats["outstanding"] == HELD:
                held = stats["memory"]                      # the last time counts: all have been at rest for longest
            time.sleep(0.2)
        finish(process)
    if not held:
        sys.exit(f"bench/relay.py: {name} never had all {HELD} connections")
    return {"bytes": (held - before) / HELD}


def number(v):
    return f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def median(rounds, server, key):
    return statistics.median(r[server][key] for r in rounds)


def ratio(rounds, key):
    """Go's over keyauth's, in each round; what ran minutes apart can't be compared."""
    return statistics.median(r["go"][key] / r["keyauth"][key] for r in rounds)


def row(title, rounds, key):
    return f"| {title} | {number(median(rounds, 'keyauth', key))} | {number(median(rounds, 'go', key))} | {ratio(rounds, key):.2f} x |"


def mark(what, target, rounds, key):
    measured = ratio(rounds, key)
    return f"| {what} | ≥ {target} x | {measured:.2f} x | {'met' if measured >= target else '**missed**'} |"


def table(head, results):
    titles = {name: f"{c:,} connections, {a} ahead" for name, c, a in ((f"{c}x{a}", c, a) for c, a in LOADS)}
    titles["held"] = f"{HELD:,} connections held open"
    lines = [head, "", "| | **keyauth** | go | go's over keyauth's |", "|---|---:|---:|---:|"]
    for key, what in (("rate", "messages/s"), ("cpu_us", "server's CPU µs a message"), ("p50_us", "p50 µs"), ("p99_us", "p99 µs")):
        lines += [row(f"{titles[name]}: {what}", rounds, key) for name, rounds in results.items() if name != "held"]
    lines += [row(f"{titles['held']}: bytes of the server's memory each", results["held"], "bytes"), "",
              "| mark | target | measured | |", "|---|---:|---:|---|"]
    lines += [mark(f"{titles[name]}: CPU a message, go's over keyauth's", CPU_MARK, rounds, "cpu_us")
              for name, rounds in results.items() if name != "held"]
    lines += [mark(f"{titles['held']}: memory, go's over keyauth's", MEMORY_MARK, results["held"], "bytes")]
    return "\n".join(lines) + "\n"


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    versions = first_line(os.environ.get("CC", "cc"), "--version"), first_line("go", "version").removeprefix("go version ")
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {', '.join(versions)}"


def main():
    parser = argparse.ArgumentParser(prog="./build.sh bench-relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=500000, help="of a load")
    parser.add_argument("--out", default="bench/results")
    options = parser.parse_args()
    runs = {f"{c}x{a}": lambda name, c=c, a=a: run_fast(name, c, a, options.messages) for c, a in LOADS} | {"held": run_held}
    results = {name: [] for name in runs}
    for i in range(options.rounds):
        for load_name, run in runs.items():
            figures_of = {}
            for name in sorted(SERVERS, reverse=i % 2 == 0):        # they take turns at being first
                figures_of[name] = run(name)
                print(f"{i + 1} {load_name} {name}: " + ", ".join(f"{k} {number(v)}" for k, v in figures_of[name].items()), flush=True)
            results[load_name].append(figures_of)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    head = (f"{machine()}. {date}. Medians of {options.rounds} rounds of {options.messages:,} messages; "
            "the last column is the median of the rounds' own ratios.")
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/relay.md", "w") as f:
        f.write(table(head, results))
    with open(f"{options.out}/relay.json", "w") as f:
        json.dump({"machine": machine(), "date": date, "rounds": options.rounds, "messages": options.messages, "loads": results}, f, indent=1)
        f.write("\n")
    print(table(head, results), end="")


main()
