#!/usr/bin/env python3
"""Puts small faults into the headers, one in each copy, and says which of them no test notices.

    tests/mutants.py                  40 faults, picked at random
    tests/mutants.py --seed 7 -n 300  others, and more
    tests/mutants.py --seconds 300    as many as the time allows
    tests/mutants.py --again          those that tests/mutants.txt explains

A fault whose object code is that of the header itself is none. The topics of the faulty section run
first, then all of ./test with the faulty programs. tests/mutants.txt has the faults that change
nothing which can be seen, with one sentence each. The status is 1 if another one is not noticed."""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TESTS_OF = {"worker": ["worker", "http"], "server": ["connect", "worker"], "platform": ["platform", "addresses"],
            "lookup": ["addresses"], "redis": ["ext_redis", "ext_resp"]}
PROGRAMS = ["server", "client", "examples/chat", "examples/codes/codes", "examples/gate/gate",
            "examples/relay/relay", "examples/fleet/fleet"]
KNOWN = "tests/mutants.txt"         # FILE: LINE => FAULTY LINE: why nothing can be seen
TOPIC_S, ALL_S = 120, 240           # a fault that makes a test hang is noticed
SWAPS = {"==": "!=", "!=": "==", "<=": "<", ">=": ">", "<": "<=", ">": ">=", "&&": "||", "||": "&&",
         "+": "-", "-": "+", "+=": "-=", "-=": "+=", "++": "--", "--": "++", "<<": ">>", ">>": "<<"}
OPERATOR = re.compile(r"(?<=[\w)\]]) (==|!=|<=|>=|<|>|&&|\|\||\+|-|\+=|-=|<<|>>) |(?<=[\w)\]])(\+\+|--)")
NUMBER = re.compile(r"(?<![\w.'\"])(\d+)(?![\w.'\"])")
CONDITION = re.compile(r"\b(if|while) \((.*)\)( |$)")
STATEMENT = re.compile(r"^(\s+)(?!return|break|continue|goto|case|default|static|const|struct)"
                       r"[\w>.\-\[\]*+() ]*(\(|=[^=]|\+\+|--).*;$")
DECLARATION = re.compile(r"^\s+(const )?(unsigned |struct )*[a-z_]\w*( \*?|\* ?)[a-z_]\w*( =|;|,|\[)")


def code_lines(path):
    """The numbers and texts of the lines of code, and the section of each; no comments, no text."""
    section, comment, code = os.path.basename(path)[:-2], False, False
    with open(path) as f:
        for number, line in enumerate(f.read().splitlines()):
            banner = re.match(r"^   \d ([a-z]+)$", line)
            if banner and code:
                section = banner[1]
            code = code or bool(re.match(r"#define KEYAUTH_\w*IMPLEMENTED$", line))
            starts = "/*" in line
            if code and not comment and not starts and line.startswith(" ") and '"' not in line:
                yield number, line, section
            comment = (comment or starts) and "*/" not in line


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


def all_faults():
    for path in ["keyauth.h", *sorted(f"ext/{name}" for name in os.listdir("ext"))]:
        for number, line, section in code_lines(path):
            for faulty in faults_of(line):
                yield path, number, line, faulty, section


def topics_of(section):
    found = []
    for name in TESTS_OF.get(section, [section, f"ext_{section}"]):
        if os.path.exists(f"tests/{name}.h"):
            with open(f"tests/{name}.h") as f:
                found += re.findall(r'\{ "([^"]+)", test_', f.read())
    return found


def known_faults():
    with open(KNOWN) as f:
        rows = [line.rstrip("\n").split(" | ") for line in f if " | " in line]
    return {(path, line.strip(), faulty.strip()): why for path, line, faulty, why in rows}


def run(directory, seconds, *command):
    """Is its status 0? It and what it started ends within the seconds."""
    process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        good = process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        good = False
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    return good


def compiled(directory, program, *flags):
    return run(directory, ALL_S, os.environ.get("CC", "cc"), "-std=c11", "-O1", "-w", "-pthread", "-I.", *flags, program)


def object_code(directory, path):
    """Of all headers, without names of lines: two that are alike do the same."""
    with open(f"{directory}/whole.c", "w") as f:
        f.write("#define KEYAUTH_IMPLEMENTATION\n#define KA_ASSERT(x) ((void)0)\n#include \"keyauth.h\"\n")
        order = ["file", "process", "input", "lookup", "uuid", "framing", "route", "timer", "sse", "json", "peers", "limit",
                 "log", "journal", "redis", "service", "cli", "access", "metrics"]
        f.write("".join(f'#include "ext/{name}.h"\n' for name in order))
    if not compiled(directory, "whole.c", "-c", "-o", "whole.o"):
        return None
    with open(f"{directory}/whole.o", "rb") as f:
        return f.read()


def judge(directory, fault, plain):
    """"equal", "refused" by the compiler, "noticed" by its topics or by all, or "survived"."""
    path, number, line, faulty, section = fault
    with open(f"{directory}/{path}") as f:
        text = f.read()
    lines = text.splitlines()
    lines[number] = faulty
    with open(f"{directory}/{path}", "w") as f:
        f.write("\n".join(lines) + "\n")
    try:
        code = object_code(directory, path)
        if code is None:
            return "refused"
        if code == plain:
            return "equal"
        if not compiled(directory, "test.c", "-o", "test"):
            return "refused"
        for topic in topics_of(section):
            if not run(directory, TOPIC_S, "./test", topic):
                return f"noticed by {topic}"
        for program in PROGRAMS:
            compiled(directory, f"{program}.c", "-o", program)
        return "survived" if run(directory, ALL_S, "./test") else "noticed by all"
    finally:
        with open(f"{directory}/{path}", "w") as f:
            f.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=40, help="how many faults (default 40)")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400, help="which ones (default: today's)")
    parser.add_argument("--seconds", type=int, default=10**9, help="stop after so long")
    parser.add_argument("--again", action="store_true", help=f"try those of {KNOWN}")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    known, faults = known_faults(), list(all_faults())
    is_known = lambda fault: (fault[0], fault[2].strip(), fault[3].strip()) in known
    random.Random(options.seed).shuffle(faults)
    faults = [fault for fault in faults if is_known(fault) == options.again]
    begin, counts = time.monotonic(), {"noticed": 0, "survived": 0}
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tree = f"{directory}/tree"
        shutil.copytree(".", tree, ignore=shutil.ignore_patterns(".git", "*.exe", "disk-*"))
        plain = object_code(tree, "keyauth.h")
        for program in PROGRAMS:
            if not compiled(tree, f"{program}.c", "-o", program):
                sys.exit(f"mutants: {program}.c does not compile")
        for fault in faults:
            if sum(counts.values()) >= options.n or time.monotonic() - begin > options.seconds:
                break
            verdict = judge(tree, fault, plain)
            path, number, line, faulty, _ = fault
            if verdict.split()[0] not in counts:
                continue
            counts[verdict.split()[0]] += 1
            print(f"{verdict}: {path}:{number + 1}", flush=True)
            if verdict == "survived":
                print(f"    {line.strip()}\n    {faulty.strip()}", flush=True)
    print(f"{counts['noticed']} passed, {counts['survived']} failed, 0 skipped")
    return counts["survived"] > 0 and not options.again


if __name__ == "__main__":
    sys.exit(main())
