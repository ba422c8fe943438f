"""The relay beside bench/relay.go; run by ./build.sh bench-relay (bench/README.md)."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys

import report

SERVERS = {
    "keyauth": ["examples/relay/relay", "server", "--workers", "1", "--port", "0"],
    "go": ["bench/relay", "-port", "0"],
}
LOADS = [(1000, 1), (64, 16), (16, 64)]  # connections, and messages of each that wait at once
HELD = 10000  # Go has a table of 20,000 descriptors for all
CPU_MARKS, MEMORY_MARK = {1000: 2, 64: 4, 16: 4}, 8
SAID = {  # what the load says at its end, and how many of our units that is
    "rate": (r"^messages .* s, (\d+) a second", 1),
    "cpu_us": (r"^server .* CPU seconds, ([\d.]+) us a message", 1),
    "p50_us": (r"^  ms +([\d.]+)", 1000),
    "p99_us": (r"^  ms +[\d.]+ +[\d.]+ +([\d.]+)", 1000),
    "bytes": (r"^memory .* (\d+) bytes a connection", 1),
}


def run(name, *options):
    """One load on a fresh server. Go keeps memory for later: that check alone may fail."""
    with subprocess.Popen(SERVERS[name], stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().removeprefix("listening on ").strip()
            load = subprocess.run(
                ["examples/relay/relay", "load", "--server", address, *map(str, options)],
                capture_output=True,
                text=True,
            )
        finally:
            server.terminate()
    failed = re.findall(r"^FAILED +\b(?!zero state: memory)", load.stdout, re.M)
    if failed or load.returncode not in (0, 1):
        sys.exit(
            f"bench/relay.py: the load of {name} failed with {load.returncode}:\n{load.stdout}{load.stderr}"
        )
    return {
        key: float(re.search(said, load.stdout, re.M)[1]) * unit
        for key, (said, unit) in SAID.items()
    }


def options_of(load, messages):
    if load == HELD:
        return "--clients", HELD, "--window", 3, "--delay", "8..8"
    clients, ahead = load
    return (
        "--clients",
        clients,
        "--window",
        0,
        "--delay",
        "0..0",
        "--ahead",
        ahead,
        "--messages",
        max(messages // clients, ahead),
    )


def ratio(rounds, key):
    """Go's over keyauth's, in each round: lower quartile, median, upper."""
    return report.quartiles([r["go"][key] / r["keyauth"][key] for r in rounds])


def row(what, rounds, key):
    cells = [
        report.number(statistics.median(r[server][key] for r in rounds))
        for server in ("keyauth", "go")
    ]
    return f"| {what} | " + " | ".join(cells) + f" | {report.show(ratio(rounds, key))} |"


def mark(what, target, rounds, key):
    measured = ratio(rounds, key)
    return f"| {what} | ≥ {target} | {report.show(measured)} | {'met' if measured[1] >= target else '**missed**'} |"


def title(load):
    return (
        f"{HELD:,} connections held open"
        if load == HELD
        else f"{load[0]:,} connections, {load[1]} ahead"
    )


def table(head, results):
    fast = {title(load): rounds for load, rounds in results.items() if load != HELD}
    lines = [head, "", "| | **keyauth** | go | go's over keyauth's |", "|---|---:|---:|---:|"]
    for key, what in (
        ("rate", "messages/s"),
        ("cpu_us", "the server's CPU µs a message"),
        ("p50_us", "p50 µs"),
        ("p99_us", "p99 µs"),
    ):
        lines += [row(f"{name}: {what}", rounds, key) for name, rounds in fast.items()]
    lines += [
        row(f"{title(HELD)}: bytes of the server's memory each", results[HELD], "bytes"),
        "",
        "| mark | target | measured | |",
        "|---|---:|---:|---|",
    ]
    lines += [
        mark(
            f"{title(load)}: CPU a message, go's over keyauth's",
            CPU_MARKS[load[0]],
            results[load],
            "cpu_us",
        )
        for load in LOADS
    ]
    lines += [
        mark(f"{title(HELD)}: memory, go's over keyauth's", MEMORY_MARK, results[HELD], "bytes")
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="./build.sh bench-relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each load (default 15)")
    parser.add_argument(
        "--messages", type=int, default=100000, help="of a load in a round (default 100000)"
    )
    parser.add_argument(
        "--out", default="bench/results", help="where the results go (default bench/results)"
    )
    options = parser.parse_args()
    if not os.path.exists("bench/relay"):
        sys.exit("bench/relay.py: there is no bench/relay; Debian's golang-go builds it")
    results = {load: [] for load in [*LOADS, HELD]}
    for i in range(options.rounds):
        for load, rounds in results.items():
            rounds.append({})
            for name in sorted(SERVERS, reverse=i % 2 == 0):  # they take turns at being first
                rounds[i][name] = run(name, *options_of(load, options.messages))
                print(
                    f"{i + 1} {title(load)}, {name}: "
                    + ", ".join(f"{k} {report.number(v)}" for k, v in rounds[i][name].items()),
                    flush=True,
                )
    about = report.about(rounds=options.rounds, messages=options.messages)
    head = report.head(about) + (
        f", {report.first_line('go', 'version')}. {options.rounds} rounds of {options.messages:,} messages; "
        "a ratio is the median of the rounds' own, with its quartiles in brackets."
    )
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/relay.md", "w") as f:
        f.write(table(head, results))
    with open(f"{options.out}/relay.json", "w") as f:
        json.dump(
            about | {"loads": {title(load): rounds for load, rounds in results.items()}},
            f,
            indent=1,
        )
        f.write("\n")
    print(table(head, results), end="")


main()
