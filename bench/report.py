"""The results as tables, sentences and charts."""

import datetime
import json
import math
import os
import platform
import re
import statistics
import subprocess

import charts
from peers import FIGURES, MARKS, base_of, title_of


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def ratios(result, figure, ours, over):
    """Of each cycle, whose slices ran within seconds of each other. None: one didn't run.

    A server that answers all in one go, and still runs, has no CPU yet: no ratio. That is so in
    slices that are much too short."""
    slices = result["slices"]
    if ours not in slices or over not in slices:
        return None
    pairs = zip(slices[ours], slices[over])
    return quartiles([a[figure] / b[figure] for a, b in pairs if b[figure]] or [math.nan])


def number(v):
    return f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def show(three):
    return f"{three[1]:.2f} [{three[0]:.2f}, {three[2]:.2f}]"


def table_of_ratios(name, result):
    base = base_of(name)
    lines = [
        f"**{title_of(name)}**, over {base}",
        "",
        "| | " + " | ".join(FIGURES.values()) + " |",
        "|---|" + "---:|" * len(FIGURES),
    ]
    for peer in result["slices"]:
        cells = [show(ratios(result, figure, peer, base)) for figure in FIGURES]
        bold = "**" if charts.is_ours(peer) else ""
        lines.append(f"| {bold}{peer}{bold} | " + " | ".join(cells) + " |")
    return lines + [""]


def table_of_absolutes(results):
    lines = [
        "| medians of the slices | | requests/s | CPU µs a request | p50 / p99 / p99.9 µs of all |",
        "|---|---|---:|---:|---:|",
    ]
    for name, result in results.items():
        for peer, slices in result.get("slices", {}).items():
            rate, cpu = (
                number(statistics.median(s[key] for s in slices)) for key in ("rate", "cpu_us")
            )
            times = " / ".join(map(number, result["totals"][peer]))
            lines.append(f"| {title_of(name)} | {peer} | {rate} | {cpu} | {times} |")
    return lines + [""]


def verdict(mark, three):
    """Met, if the median is; what its quartiles straddle is too near to tell."""
    good = (lambda v: v <= mark.target) if mark.sign == "<" else (lambda v: v >= mark.target)
    word = "met" if good(three[1]) else "**missed**"
    return word if good(three[0]) == good(three[2]) else f"{word}, by less than its spread"


def table_of_marks(results):
    lines = ["| mark | target | measured | |", "|---|---:|---:|---|"]
    again = [
        "",
        "The same program against itself, which shows what the method can tell:",
        "",
        "| | measured |",
        "|---|---:|",
    ]
    for mark in MARKS:
        three = mark.scenario in results and ratios(
            results[mark.scenario], mark.figure, mark.ours, mark.over
        )
        if not three:
            continue
        what = f"{title_of(mark.scenario)}: {FIGURES[mark.figure]}, {mark.ours} over {mark.over}"
        if mark.sign == "=":
            again.append(f"| {title_of(mark.scenario)}: {FIGURES[mark.figure]} | {show(three)} |")
        else:
            sign = {"<": "≤", ">": "≥"}[mark.sign]
            lines.append(
                f"| {what} | {sign} {mark.target:g} | {show(three)} | {verdict(mark, three)} |"
            )
    return lines + (again if len(again) > 5 else []) + [""]


def missed(it_is):
    return ", **missed**" if it_is else ""


def sentences(results):
    said = []
    if "idle-15000" in results:
        said.append(
            f"- An idle connection takes {results['idle-15000']['bytes']:.0f} bytes (mark: 200)."
        )
    if "growth" in results:
        said.append(f"- A key takes {results['growth']['bytes']:.0f} bytes, all in (mark: 170).")
    if "start" in results:
        start = results["start"]
        said.append(
            f"- From exec to listening: {start['median_ms']:.2f} ms (mark: 3{missed(start['median_ms'] > 3)}), "
            f"the worst of 50 {start['worst_ms']:.2f} ms."
        )
        said.append(
            f"- Stripped: server {start['stripped']['server']:,} bytes, "
            f"client {start['stripped']['client']:,} bytes."
        )
        said.append(f"- keyauth.h compiles in {start['compile_s']:.2f} s (mark: 1.5{missed(start['compile_s'] > 1.5)}).")
    return said + [""] if said else []


def first_line(*command):
    said = subprocess.run(command, capture_output=True, text=True)
    return ((said.stdout or said.stderr).splitlines() or [""])[0]


def version():
    with open("keyauth.h") as f:
        return re.search(r'^#define KA_VERSION "([^"]+)"', f.read(), re.M)[1]


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    cc = first_line(os.environ.get("CC", "cc"), "--version")
    name = model[1] if model else platform.machine()
    return f"{name}, {os.cpu_count()} cores, Linux {platform.release()}, {cc}"


def about(**more):
    """What a result is of."""
    commit = first_line("git", "describe", "--always", "--dirty") or "unknown"
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"version": version(), "commit": commit, "machine": machine(), "date": date} | more


def head(what):
    return f"keyauth {what['version']}, commit {what['commit']}. {what['date']}. {what['machine']}"


def write(results, options):
    what = about(cycles=options.cycles, slice_ms=options.slice_ms)
    lines = [
        f"{head(what)}. {options.cycles} slices of {options.slice_ms} ms each, in turn; "
        "a ratio is the median of the cycles' own, with its quartiles in brackets.",
        "",
    ]
    lines += table_of_marks(results) + sentences(results)
    for name, result in results.items():
        if "slices" in result:
            lines += table_of_ratios(name, result)
    lines += table_of_absolutes(results)
    os.makedirs(options.out, exist_ok=True)
    with open(f"{options.out}/table.md", "w") as f:
        f.write("\n".join(lines).rstrip() + "\n")
    with open(f"{options.out}/results.json", "w") as f:
        rounded = json.loads(json.dumps(results), parse_float=lambda v: float(f"{float(v):.4g}"))
        json.dump(what | {"scenarios": rounded}, f, separators=(",", ":"))
        f.write("\n")
    for name, result in results.items():
        if "slices" in result and name != "growth":
            base = base_of(name)
            rows = [
                (peer, ratios(result, "rate", peer, base), ratios(result, "cpu_us", peer, base))
                for peer in result["slices"]
                if not peer.endswith(" again")
            ]
            charts.draw(
                f"{options.out}/{name}.svg",
                title_of(name),
                base,
                rows,
                f"keyauth {what['version']}; {what['machine']}",
            )
    print("\n".join(lines))
