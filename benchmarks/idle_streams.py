"""What does an idle connection with its task weigh, and do 10,000 of them slow down 64 busy ones?

Memory: how much the server process's resident memory (Rss of smaps_rollup) grows, per connection, when 10,000 clients
connect, send one byte, get it back and fall silent: the stream, the task that waits for it with its coroutines, and the
server's share of tables. The clients are another process. Not counted: the kernel's memory.

Speed: the same 64 busy connections, alone and among the idle ones, a fresh server each time.
"""

from __future__ import annotations

import socket
from pathlib import Path

from benchmarks._process import Server, echo_command, has_module, load, raise_file_limit, serving
from benchmarks._report import Column, Plan, Report, Row, Target, alternate, figure_columns, ratio_targets

QUESTION = "memory of an idle stream with its task; 64 busy ones among 10,000 idle"

BUSY = 64
IDLE = 10_000
SIZE = 1024
SPARE_FILES = 300
KIB_LIMIT = 2.0
CPU_LIMIT = 1.05
NEEDS = {"task": "manyhands", "uvloop": "uvloop", "uvloop-streams": "uvloop", "trio": "trio", "gevent": "gevent"}
SERVERS = ["task", "uvloop", "asyncio", "uvloop-streams", "asyncio-streams", "trio", "gevent"]


def measure(plan: Plan) -> Report:
    """Measure memory for every server, and speed for the task."""
    idle = min(IDLE, raise_file_limit() - BUSY - SPARE_FILES)
    notes = [] if idle == IDLE else [f"only {idle} idle connections: `ulimit -Hn` allows no more"]
    names = [name for name in SERVERS if name not in NEEDS or has_module(NEEDS[name], plan.python)]
    if plan.quick:
        names = names[:2]
    memory = {name: Row({"what": f"{name} memory", "idle": idle}) for name in names}
    speed = {count: Row({"what": "task", "idle": count}) for count in (0, idle)}
    for name in alternate(names, max(1, plan.rounds // 2)):
        with serving(echo_command(name, plan.python)) as server:
            # The first ones pay for what is made once.
            load(server, connections=1, idle=100, size=1, seconds=0.05)
            before = _resident_kib(server.pid)
            memory[name].add(kib=_held(server, idle, before))
    for count in alternate(list(speed), plan.rounds):
        with serving(echo_command("task", plan.python)) as server:
            run = load(server, connections=BUSY, idle=count, size=SIZE, seconds=plan.seconds)
        speed[count].add(cpu_us=run.cpu_us, throughput=run.throughput, p99_us=run.latency_us["p99"])
    columns = [Column("KiB each", "kib"), *figure_columns("CPU us", "cpu_us"), Column("p99 us", "p99_us", digits=0)]
    targets = [Target("KiB per idle stream with its task, median", memory["task"].median("kib"), KIB_LIMIT)]
    targets += ratio_targets(f"CPU per message among {idle} idle / alone", speed[idle], speed[0], "cpu_us", CPU_LIMIT)
    return Report([*memory.values(), *speed.values()], columns, targets, notes, {"busy": BUSY, "idle": idle})


def _held(server: Server, count: int, before: int) -> float:
    """Connect, let each be echoed to once, and look while all are open. KiB each."""
    clients: list[socket.socket] = []
    try:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port))
            clients.append(client)
            client.sendall(b"x")
            client.recv(1)
        return (_resident_kib(server.pid) - before) / count
    finally:
        for client in clients:
            client.close()


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise RuntimeError("no Rss in smaps_rollup")
