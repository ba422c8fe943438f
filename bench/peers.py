"""What is compared: servers, scenarios and marks."""

import dataclasses

IP = "127.0.0.2"
IDLE, MIX_KEYS, GROWTH_KEYS = 15000, 1000000, 10000000
FIGURES = {
    "rate": "requests/s",
    "cpu_us": "CPU µs a request",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
}
SERVER = ["./server", "--max-keys", "50000000", "--port"]


@dataclasses.dataclass
class Peer:
    """A server: its command, where @port, @file and @dir are replaced. `needs` brings it."""

    command: list
    needs: str = ""


PEERS = {
    "floor": Peer(["bench/floor", "@port", "148"]),
    "keyauth": Peer([*SERVER, "@port"]),
    "nginx": Peer(["nginx", "-e", "stderr", "-p", "@dir", "-c", "nginx.conf"], "nginx-light"),
    "microhttpd": Peer(["bench/microhttpd", "@port"], "libmicrohttpd-dev"),
    "go": Peer(["bench/http", "@port"], "golang-go"),
    "node": Peer(["node", "bench/node.js", "@port"], "nodejs"),
    "keyauth again": Peer([*SERVER, "@port"]),
}
ALONE = {
    **PEERS,
    "floor, two hand-offs": Peer(["bench/floor", "@port", "148", "hand-off"]),
}
STORES = {
    "keyauth --journal": Peer([*SERVER, "@port", "--journal", "@file"]),
    "SQLite, batched": Peer(["bench/sqlite", "@port", "@file", "--batched"], "libsqlite3-dev"),
    "SQLite, single": Peer(["bench/sqlite", "@port", "@file", "--single"], "libsqlite3-dev"),
    "keyauth, no file": Peer([*SERVER, "@port"]),
    "keyauth --log": Peer([*SERVER, "@port", "--log", "@file"]),
    "append + fdatasync": Peer(["append"]),
}
REDIS = {
    "keyauth, in memory": Peer([*SERVER, "@port"]),
    "keyauth --redis": Peer(
        ["./server", "--port", "@port", "--redis", "127.0.0.1:@redis"], "redis-server"
    ),
    "redis, SET": Peer(["redis"], "redis-server"),
}
WORKERS = {
    f"{n} worker{'s' * (n > 1)}": Peer([*SERVER, "@port", "--workers", str(n)]) for n in (1, 4, 8)
}


@dataclasses.dataclass
class Scenario:
    title: str
    connections: int
    shape: str
    peers: dict
    base: str  # what the ratios are to


SCENARIOS = {
    "keepalive-1": Scenario("1 keep-alive connection", 1, "ask", ALONE, "floor"),
    "keepalive-64": Scenario("64 keep-alive connections", 64, "ask", PEERS, "floor"),
    "keepalive-512": Scenario("512 keep-alive connections", 512, "ask", PEERS, "floor"),
    "pipelined-64x16": Scenario(
        "64 connections, 16 requests pipelined", 64, "ask16", PEERS, "floor"
    ),
    "per-request": Scenario(
        "64 at a time, a connection for each request", 64, "close", PEERS, "floor"
    ),
    "workers-64": Scenario("64 connections, several workers", 64, "ask", WORKERS, "1 worker"),
    "journal-1": Scenario("on disk, 1 connection", 1, "ask", STORES, "keyauth --journal"),
    "journal-64": Scenario("on disk, 64 connections", 64, "ask", STORES, "keyauth --journal"),
    "journal-512": Scenario("on disk, 512 connections", 512, "ask", STORES, "keyauth --journal"),
    "redis-1": Scenario("in Redis, 1 connection", 1, "ask", REDIS, "redis, SET"),
    "redis-64": Scenario("in Redis, 64 connections", 64, "ask", REDIS, "redis, SET"),
    "redis-512": Scenario("in Redis, 512 connections", 512, "ask", REDIS, "redis, SET"),
}


@dataclasses.dataclass
class Mark:
    """keyauth's figure over another's: at most ("<") or at least (">") the target."""

    scenario: str
    figure: str
    ours: str
    over: str
    sign: str
    target: float


MARKS = [
    Mark("keepalive-1", "p50_us", "keyauth", "nginx", "<", 1),
    Mark("keepalive-1", "rate", "keyauth", "nginx", ">", 1),
    *[
        Mark(f"keepalive-{n}", "cpu_us", "keyauth", over, "<", target)
        for n, floor in ((64, 1.12), (512, 1.15))
        for over, target in (("floor", floor), ("nginx", 1), ("microhttpd", 1))
    ],
    Mark("pipelined-64x16", "rate", "keyauth", "nginx", ">", 7),
    Mark("per-request", "rate", "keyauth", "nginx", ">", 1),
    Mark("workers-64", "cpu_us", "4 workers", "1 worker", "<", 1.05),
    Mark("workers-64", "cpu_us", "8 workers", "1 worker", "<", 1.05),
    Mark("journal-1", "rate", "keyauth --journal", "SQLite, batched", ">", 1),
    Mark("journal-1", "rate", "keyauth --journal", "SQLite, single", ">", 1),
    Mark("redis-1", "rate", "keyauth --redis", "redis, SET", ">", 0.5),
    Mark("redis-64", "rate", "keyauth --redis", "redis, SET", ">", 1),
    Mark("mix", "rate", "1 ask to 4 logins", "asks only", ">", 0.97),
    Mark("growth", "p99_us", "growing table", "fixed table", "<", 3),
    Mark("idle-15000", "rate", "64 busy beside 15,000 idle", "64 busy", ">", 0.97),
    *[
        Mark(name, figure, "keyauth again", "keyauth", "=", 1)
        for name in ("keepalive-1", "keepalive-64", "keepalive-512")
        for figure in ("rate", "cpu_us")
    ],
]

# Scenarios that bench.py has a function for.
TITLES = {
    "mix": "1,000,000 keys",
    "idle-15000": "15,000 idle connections",
    "growth": "from 0 to 10,000,000 keys",
}
BASES = {"mix": "asks only", "idle-15000": "64 busy", "growth": "fixed table"}


def title_of(name):
    return SCENARIOS[name].title if name in SCENARIOS else TITLES[name]


def base_of(name):
    return SCENARIOS[name].base if name in SCENARIOS else BASES[name]
