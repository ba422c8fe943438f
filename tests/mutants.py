#!/usr/bin/env python3
"""Puts small faults into the headers, one at a time, and says which of them no test notices.

    tests/mutants.py             the first 300 faults of the list (-n: more, or fewer)
    tests/mutants.py --share     some of them, for 300 s; the date tells where it begins
    tests/mutants.py --again     those that tests/mutants.txt explains

A hash sorts the list, so an edited line moves no other line's faults. A fault is noticed if a topic
fails twice or takes far too long. The topics of the fault's section run first. A fault is "equal"
if the object code is the same. tests/mutants.txt explains faults that nobody can see, in one
sentence each. The status is 1 if another fault survives."""

import argparse
import collections
import glob
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# The tables of topics (tests/*.h) that run first. Other sections have a table of their own name.
TABLES = {"platform": ["platform", "addresses"], "text": ["text", "http"], "site": ["cross_site"],
          "mailbox": ["mailbox", "worker"], "worker": ["worker", "http", "connect", "ext_sse"],
          "server": ["worker", "http", "connect", "ext_sse"], "lookup": ["addresses", "connect"],
          "redis": ["ext_redis_plays", "ext_redis", "ext_resp"],
          "file": ["ext_file", "ext_journal", "ext_log"]}
PROGRAMS = ["server", "client", "examples/chat", "examples/codes/codes", "examples/gate/gate",
            "examples/relay/relay", "examples/fleet/fleet"]
KNOWN = "tests/mutants.txt"         # FILE | LINE | FAULTY LINE | why nobody can see it
JOBS, TOPIC_S = 8, 10               # topics at once; a topic's time beside 3 times its usual one
CC = os.environ.get("CC") or shutil.which("clang") or "cc"      # clang -O0: half of gcc's time
FLAGS = ["-std=c11", "-w", "-pthread", "-I."]
UBSAN = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]      # an index too large
SWAPS = {"==": "!=", "!=": "==", "<=": "<", ">=": ">", "<": "<=", ">": ">=", "&&": "||", "||": "&&",
         "+": "-", "-": "+", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "<<": ">>", ">>": "<<"}
OPERATOR = re.compile(r"(?<=[\w)\]]) (==|!=|<=|>=|<|>|&&|\|\||\+|-|\+=|-=|<<|>>) "
                      r"|(?<=[\w)\]])(\+\+|--)")
NUMBER = re.compile(r"(?<![\w.'\"])(\d+)(?![\w.'\"])")
CONDITION = re.compile(r"\b(if|while) \((.*)\)( |$)")
STATEMENT = re.compile(r"^(\s+)(?!return|break|continue|goto|case|default|static|const|struct)"
                       r"[\w>.\-\[\]*+() ]*(\(|=[^=]|\+\+|--).*;$")
DECLARATION = re.compile(r"^\s+(const )?(unsigned |struct )*[a-z_]\w*( \*?|\* ?)[a-z_]\w*"
                         r"( =|;|,|\[)")


def read(path):
    with open(path) as f:
        return f.read()


def requires(path):
    """What must be included before it, and itself, in order: its lines of #error say so."""
    found = re.findall(r'#\s*error "ext/.*: include (\S+) first"', read(path))
    return list(dict.fromkeys([header for other in found for header in requires(other)] + [path]))


def whole(path, text):
    """A translation unit: this header's text, and what the header requires."""
    return ("#define KEYAUTH_IMPLEMENTATION\n#define KA_ASSERT(x) ((void)0)\n"
            + "".join(f'#include "{header}"\n' for header in requires(path)[:-1])
            + f'#line 1 "{path}"\n{text}')


def code_lines(path):
    """The lines that are compiled here: number, text and section. Comments and strings are none."""
    kept, section, code, at = set(), os.path.basename(path)[:-2], False, None
    unit = subprocess.run([CC, *FLAGS, "-E", "-xc", "-"], input=whole(path, read(path)), text=True,
                          capture_output=True, check=True)
    for line in unit.stdout.splitlines():
        marker = re.match(r'# (\d+) "(.*?)"', line)
        if marker:
            at = int(marker[1]) - 1 if marker[2] == path else None
        elif at is not None:
            at += 1
            kept |= {at} if line.strip() else set()
    for number, line in enumerate(read(path).splitlines(), 1):
        banner = re.match(r"   \d ([a-z]+)$", line)
        section = banner[1] if banner and code else section
        code = code or bool(re.match(r"#define KEYAUTH_\w*IMPLEMENTED$", line))
        line = line.split("/*")[0].rstrip()
        if code and number in kept and line.startswith(" ") and '"' not in line:
            yield number, line, section


def faults_of(line):
    """Each way in which the line can be wrong."""
    for match in OPERATOR.finditer(line):
        group = 1 if match[1] else 2
        yield line[:match.start(group)] + SWAPS[match[group]] + line[match.end(group):]
    for match in NUMBER.finditer(line):
        yield line[:match.start()] + str(int(match[1]) + 1) + line[match.end():]
    match = CONDITION.search(line)
    if match and match[2].count("(") == match[2].count(")"):
        yield line[:match.start(2)] + f"!({match[2]})" + line[match.end(2):]
    if STATEMENT.match(line) and not DECLARATION.match(line):
        yield re.match(r"\s+", line)[0] + ";"


def all_faults(seed):
    """seen: of lines that are alike, which one it is."""
    found, seen = [], collections.Counter()
    for path in ["keyauth.h", *glob.glob("ext/*.h")]:
        for number, line, section in code_lines(path):
            for faulty in faults_of(line):
                row = f"{path} | {line.strip()} | {faulty.strip()} | "
                seen[row] += 1
                digest = hashlib.sha256(f"{seed} {seen[row]} {row}".encode()).digest()
                found.append((digest, path, number, faulty, section, row))
    return [fault[1:] for fault in sorted(found)]


def topics_of(section):
    """Those that run first, and the others: these may start programs."""
    text = "\n".join(map(read, glob.glob("tests/*.h") + glob.glob("examples/*/tests.h")))
    tables = {name: re.findall(r'\{ "([^"]+)", test_', rows)
              for name, rows in re.findall(r"subject (\w+)_topics\[\] = \{(.*?)\};", text, re.S)}
    starts_none = re.findall(r"\bTOPICS\((\w+)\)", read("test.c"))
    first = [topic for name in TABLES.get(section, [section, f"ext_{section}"])
             if name in starts_none for topic in tables[name]]
    return first, [topic for rows in tables.values() for topic in rows if topic not in first]


def start(*command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)


def end(process):
    """The process, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def compiled(*programs):
    running = [start(CC, *FLAGS, "-O0", *UBSAN * (program == "test"), "-o", program, f"{program}.c")
               for program in programs]
    return sum([process.wait() for process in running]) == 0


def object_code(path, text):
    subprocess.run([os.environ.get("CC", "cc"), *FLAGS, "-O1", "-c", "-xc", "-o", "whole.o", "-"],
                   input=whole(path, text).encode(), check=True)
    with open("whole.o", "rb") as f:
        return f.read()


took = {}      # seconds of each topic, when it passed last


def noticed_by(topics, stop):
    """The topic that fails twice or takes too long; "" is none. The shortest topics run first. A
    TimeoutError at the time `stop`."""
    waiting, running, failed = sorted(topics, key=lambda topic: took.get(topic, 0)), {}, set()
    try:
        while waiting or running:
            if time.monotonic() > stop:
                raise TimeoutError
            while waiting and len(running) < JOBS:
                topic = waiting.pop(0)
                running[topic] = start("./test", f"={topic}"), time.monotonic()
            for topic, (process, begin) in list(running.items()):
                status, seconds = process.poll(), time.monotonic() - begin
                if status is None and seconds > TOPIC_S + 3 * took.get(topic, TOPIC_S):
                    return f"{topic}, time-out"
                if status is None:
                    continue
                end(running.pop(topic)[0])
                if status == 0:
                    took[topic] = seconds
                elif topic in failed:
                    return topic
                else:
                    failed.add(topic)
                    waiting.insert(0, topic)
            time.sleep(0.02)
        return ""
    finally:
        for process, _ in running.values():
            end(process)
        for folder in glob.glob(".test-*"):
            shutil.rmtree(folder, ignore_errors=True)


def judge(stop, path, number, faulty, section, _):
    """"refused" by the compiler, "noticed by" a topic, "equal", or "survived"."""
    plain, (first, last) = read(path), topics_of(section)
    lines = plain.split("\n")
    lines[number - 1] = faulty
    try:
        with open(path, "w") as f:
            f.write("\n".join(lines))
        if not compiled("test"):
            return "refused"
        topic = noticed_by(first, stop)
        if not topic and object_code(path, "\n".join(lines)) == object_code(path, plain):
            return "equal"
        if not topic and compiled(*PROGRAMS):
            topic = noticed_by(last, stop)
        return f"noticed by {topic}" if topic else "survived"
    finally:
        with open(path, "w") as f:
            f.write(plain)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=300, help="the first so many (default 300)")
    parser.add_argument("--seed", type=int, default=1, help="another list (default 1)")
    parser.add_argument("--share", action="store_true", help="begin where the date tells")
    parser.add_argument("--seconds", type=int, help="the time that there is (with --share: 300)")
    parser.add_argument("--again", action="store_true", help=f"the faults of {KNOWN}")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    for ignored in (signal.SIGHUP, signal.SIGQUIT):      # by nohup and by a shell's &; topics need
        signal.signal(ignored, signal.SIG_DFL)           # these signals
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop = time.monotonic() + (options.seconds or (300 if options.share else 10**9))
    known, counts = read(KNOWN).splitlines(), collections.Counter()
    faults = all_faults(options.seed)
    explained = [fault for fault in faults if any(row.startswith(fault[-1]) for row in known)]
    faults = explained if options.again else faults[:options.n]
    place = int(time.time()) // 86400 * 29 % len(faults) if options.share else 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        shutil.copytree(".", f"{directory}/tree", ignore=shutil.ignore_patterns(".git", ".test-*"))
        os.chdir(f"{directory}/tree")
        if not compiled(*PROGRAMS):
            sys.exit("mutants: the programs do not compile")
        for fault in faults[place:] + faults[:place]:
            try:
                skips = fault in explained and not options.again
                verdict = "explained" if skips else judge(stop, *fault)
                if verdict == "survived":      # the topics may have missed it by chance
                    verdict = judge(stop, *fault)
            except TimeoutError:      # the fault that is being judged does not count
                break
            counts[verdict.split()[0]] += 1
            print(f"{verdict}: {fault[0]}:{fault[1]}", flush=True)
            if verdict == "survived":
                print(f"    {fault[-1]}", flush=True)
        os.chdir("/")
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    good = counts["noticed"] + counts["explained"]
    print(f"{good} passed, {counts['survived']} failed, 0 skipped")
    return counts["survived"] > 0 and not options.again


if __name__ == "__main__":
    sys.exit(main())
