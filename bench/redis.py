"""server --redis beside the keys in memory, and beside what Redis does alone, by redis-benchmark; run by ./build.sh bench-redis (bench/README.md)."""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

IP = "127.0.0.2"
CONNECTIONS = [1, 64, 512]
PEERS = {"map": "**server**, keys in memory", "redis": "**server --redis**", "benchmark": "redis-benchmark -t set"}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def redis_server():
    """A fresh one that keeps nothing on disk, as the map doesn't either."""
    port = free_port()
    process = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"],
                               stdout=subprocess.DEVNULL)
    while subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True).returncode:
        time.sleep(0.01)
    return process, port


def run_server(connections, seconds, *options):
    with subprocess.Popen(["./server", "--port", "0", *options], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().removeprefix("listening on ").strip()
            wrk = ["wrk", "-t1", f"-c{connections}", "-s", "bench/load.lua", f"http://{address}/"]
            subprocess.run([*wrk, "-d1s", "--", "ask"], capture_output=True, check=True)        # warms it, and Redis may need a moment
            said = subprocess.run([*wrk, f"-d{seconds}s", "--", "ask"], capture_output=True, text=True, check=True).stdout
        finally:
            server.terminate()
    n, took, errors, p50, p99 = map(float, re.search(r"^RESULT (\S+) (\S+) (\S+) (\S+) (\S+)", said, re.M).groups())
    if errors:
        sys.exit(f"bench/redis.py: {errors:.0f} of {n:.0f} requests failed")
    return {"rate": n / took, "p50_us": p50, "p99_us": p99}


def run_benchmark(connections, requests, port):
    """SETs of as many bytes as our load's ID has, of keys that are all others; not pipelined."""
    said = subprocess.run(["redis-benchmark", "-p", str(port), "-t", "set", "-c", str(connections), "-n", str(requests), "-d", "88",
                           "-r", "1000000000", "--csv"], capture_output=True, text=True, check=True).stdout
    row = said.splitlines()[-1].replace('"', "").split(",")     # test, rps, avg, min, p50, p95, p99, max, in ms
    return {"rate": float(row[1]), "p50_us": float(row[4]) * 1000, "p99_us": float(row[6]) * 1000}


def run(peer, connections, seconds, rate):
    if peer == "map":
        return run_server(connections, seconds, "--max-keys", "50000000")
    process, port = redis_server()
    try:
        return run_server(connections, seconds, "--redis", f"127.0.0.1:{port}") if peer == "redis" else run_benchmark(connections, int(rate * seconds), port)
    finally:
        process.kill()
        process.wait()


def number(v):
    return f"{v:,.0f}"


def median(rounds, peer, key):
    return statistics.median(r[peer][key] for r in rounds)


def ratio(rounds, peer):
    """Of what ran in one round."""
    return statistics.median(r["redis"]["rate"] / r[peer]["rate"] for r in rounds)


def table(head, results):
    lines = [head, "", "| | " + " | ".join(PEERS.values()) + " | of memory's | of redis-benchmark's |", "|---|" + "---:|" * 5]
    for key, what in (("rate", "requests/s"), ("p50_us", "p50 µs"), ("p99_us", "p99 µs")):
        for connections, rounds in results.items():
            cells = [number(median(rounds, peer, key)) for peer in PEERS]
            cells += [f"{ratio(rounds, peer):.2f} x" if key == "rate" else "" for peer in ("map", "benchmark")]
            lines.append(f"| {connections} connection{'s' * (connections > 1)}: {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout.split(" sha=")[0]
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {version}"


def main():
    parser = argparse.ArgumentParser(prog="./build.sh bench-redis", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--out", default="bench/results")
    options = parser.parse_args()
    missing = [name for name in ("wrk", "redis-server", "redis-benchmark", "redis-cli") if not shutil.which(name)]
    if missing:
        print(f"bench/redis.py: skipped: there is no {' and no '.join(missing)}; Debian's packages wrk, redis-server and redis-tools bring them")
        return
    results = {connections: [] for connections in CONNECTIONS}
    for i in range(options.rounds):
        for connections, rounds in results.items():
            rounds.append({})
            for peer in (list(PEERS)[i % 3:] + list(PEERS)[:i % 3]):      # they take turns at being first
                rounds[i][peer] = run(peer, connections, options.seconds, 20000 if connections == 1 else 80000)
                print(f"{i + 1} {connections} connections, {peer}: " + ", ".join(f"{k} {number(v)}" for k, v in rounds[i][peer].items()), flush=True)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    head = f"{machine()}. {date}. Medians of {options.rounds} rounds of {options.seconds} s; the last columns are the medians of the rounds' own ratios."
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/redis.md", "w") as f:
        f.write(table(head, results))
    with open(f"{options.out}/redis.json", "w") as f:
        json.dump({"machine": machine(), "date": date, "rounds": options.rounds, "seconds": options.seconds, "connections": results}, f, indent=1)
        f.write("\n")
    print(table(head, results), end="")


main()
