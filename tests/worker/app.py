"""The Celery app that the test workers run; the environment says how it is instrumented."""

from __future__ import annotations

import _tracemalloc
import ctypes
import gc
import json
import os
import random
import resource
import shlex
import signal
import stringprep  # noqa: F401  # else a first run in a child imports it, and its tables grow
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from celery import Celery, signals

from otel_celery_memory import CeleryMemoryInstrumentor
from otel_celery_memory.worker.lifecycle.supervisor import HANG_S, Supervisor
from otel_celery_memory.worker.measuring import task_recorder

app = Celery("tests")
app.conf.update(
    broker_url=os.environ["TEST_BROKER"],
    result_backend=os.environ["TEST_BACKEND"],
    broker_transport_options=json.loads(os.environ.get("TEST_TRANSPORT_OPTIONS", "{}")),
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    # Celery 5.7 and later; those before do not know the setting and fork.
    worker_pool_start_method=os.environ.get("TEST_START_METHOD", "fork"),
    # Celery 5.5 and later; those before end at once.
    worker_soft_shutdown_timeout=float(os.environ.get("TEST_SOFT_SHUTDOWN_S", "0")),
    # In four seconds a spawned child may not have come up on a busy machine, and is killed for it.
    worker_proc_alive_timeout=60.0,
    # How long Celery waits for the result of a task whose process has died.
    worker_lost_wait=float(os.environ.get("TEST_LOST_WAIT_S", "10")),
    worker_enable_remote_control="TEST_REMOTE_CONTROL" in os.environ,
)

# How long a reporter may stand still before it is replaced.
Supervisor.hang_s = float(os.environ.get("TEST_HANG_S", HANG_S))


def _broken() -> NoReturn:
    raise RuntimeError("the heap cannot be read today")


if "TEST_BROKEN_HEAP" in os.environ:
    task_recorder.__dict__["read_heap"] = _broken

# A list that grows is allocated anew now and then, whole, at the line that made it grow; a deque
# takes a little more at a time.
KEPT: deque[bytearray] = deque()
HELD: list[int] = []
FRAGMENTS: list[list[bytes | None]] = []
PARSED: list[object] = []
MIB = 1 << 20
INHERITED = bytearray(b"x") * int(os.environ.get("TEST_INHERITED_BYTES", "0"))
"""What the main process has before it forks."""


@app.task
def noop() -> None:
    """Does nothing."""


@app.task
def keep(size_bytes: int) -> None:
    """Keeps memory for good."""
    KEPT.append(bytearray(size_bytes))  # the leaking line


@app.task
def remember(size_bytes: int) -> None:
    """Keeps memory for good, until its fix is deployed."""
    held = bytearray(size_bytes)  # the line that is fixed
    if "TEST_FIXED" not in os.environ:
        KEPT.append(held)


@app.task
def hold_files(count: int) -> None:
    """Keeps so many descriptors open."""
    while len(HELD) < count:
        HELD.append(os.open(os.devnull, os.O_RDONLY))


@app.task
def leave_behind(count: int) -> None:
    """Leaves a descriptor, a thread, a cycle of 64 KiB, and what a library made of a text."""
    HELD.append(os.open(os.devnull, os.O_RDONLY))
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    cycle: list[object] = [bytearray(64 * 1024)]
    cycle.append(cycle)
    PARSED.append(json.loads(json.dumps([str(number) for number in range(count)])))


@app.task
def churn_and_keep(size_bytes: int) -> str:
    """Allocates much and keeps little: the line to find is one of many."""
    rows = [{"number": number, "text": str(number), "list": [number]} for number in range(300)]
    KEPT.append(bytearray(size_bytes))  # the line that leaks in churn_and_keep
    return json.dumps(rows)[:10]


class Order:
    """What accumulates: it is tracked by the collector."""

    def __init__(self, number: int) -> None:
        self.number = number


def make_keeper() -> type:
    """A class with an attribute behind whose closure orders are kept."""
    seen: list[Order] = []

    class Keeper:
        remember = staticmethod(lambda number: seen.append(Order(number)))

    return Keeper


KEEPERS = {"orders": make_keeper()}
CROWD: list[list[int]] = []
TEXTS: list[str] = []


@app.task
def crowd(count: int) -> int:
    """Has so many objects that the collector tracks."""
    CROWD.extend([number] for number in range(count))
    return len(CROWD)


@app.task
def keep_orders(count: int) -> None:
    """Keeps objects, and a text for each."""
    keeper: Any = KEEPERS["orders"]
    for number in range(count):
        keeper.remember(number)
        TEXTS.append(f"order {number}")


@app.task
def limit_memory(room_bytes: int) -> None:
    """Lets the process take so much more data."""
    data_pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit_bytes = data_pages * resource.getpagesize() + room_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.RLIM_INFINITY))


@app.task
def hoard(steps: int, pause_s: float) -> int:
    """Takes memory slowly and keeps it."""
    Path(os.environ["TEST_MARKERS"], "hoard").touch()
    for _ in range(steps):
        KEPT.append(bytearray(1024))  # what hoard keeps
        time.sleep(pause_s)
    return len(KEPT)


@app.task
def allocate(count: int) -> float:
    """Does nothing but allocate; seconds it took."""
    began_s = time.perf_counter()
    for _ in range(count):
        [{"number": number, "list": [number]} for number in range(300)]
    return time.perf_counter() - began_s


@app.task
def allocate_traced(count: int) -> float:
    """The same under tracing from its start to its end."""
    tracemalloc.start()
    try:
        seconds: float = allocate.run(count)
        return seconds
    finally:
        tracemalloc.stop()


@app.task
def trace_if_nobody_does(times: int) -> list[int]:
    """Its own tracing, from start to stop: the frames of its snapshot, as often as it is taken."""
    found = []
    for _ in range(times):
        if not tracemalloc.is_tracing():
            tracemalloc.start(5)
        kept = [bytes(1_000) for _ in range(100)]
        found.append(tracemalloc.take_snapshot().traceback_limit)
        tracemalloc.stop()
        del kept
    return found


@app.task
def threads() -> int:
    """How many threads its process has, by the kernel."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


@app.task
def trace_by_itself() -> int:
    """Begins a tracing of its own and leaves it on."""
    tracemalloc.start(7)
    return tracemalloc.get_traceback_limit()


@app.task
def traceback_limit() -> int:
    """How deep it is traced by whom it may; 0 where it is not."""
    return tracemalloc.get_traceback_limit() if tracemalloc.is_tracing() else 0


@app.task
def is_traced() -> bool:
    """Whether it runs under tracing."""
    # Who asks by the public name ends it.
    return bool(_tracemalloc.is_tracing())


@app.task
def full_collections() -> int:
    """How many full collections there were in this process: from now on none by the interpreter."""
    gc.set_threshold(10**9)
    return int(gc.get_stats()[2]["collections"])


@app.task
def collect_cycles(count: int) -> int:
    """Makes garbage in cycles and has all generations collected; objects that were freed."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(count + 1):  # the last one is still named
            cycle: list[Any] = []
            cycle.append(cycle)
        return gc.collect()
    finally:
        gc.enable()


@app.task
def free(size_bytes: int) -> None:
    """Takes memory and gives it back."""
    bytearray(size_bytes)


@app.task
def fragment(chunks: int) -> None:
    """Frees every second block of so many, in no order: as many free chunks stay in malloc."""
    blocks: list[bytes | None] = [bytes(600) for _ in range(2 * chunks)]
    freed = list(range(0, len(blocks), 2))
    random.Random(1).shuffle(freed)
    for at in freed:
        blocks[at] = None
    FRAGMENTS.append(blocks)


@app.task
def sleep(seconds: float) -> int:
    """Takes its time; tells its process."""
    time.sleep(seconds)
    return os.getpid()


@app.task
def stubborn(seconds: float) -> None:
    """Takes its time whoever wants it to end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(os.environ["TEST_MARKERS"], "stubborn").touch()
    time.sleep(seconds)


@app.task
def die(number: int) -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), number)
    time.sleep(10)


def _apply(_: int) -> Any:
    return noop.apply()


@app.task
def fan_out(count: int, number: int = 0) -> None:
    """Runs others inside itself, in threads; then dies of a signal, if it is given one."""
    with ThreadPoolExecutor(2) as threads:
        assert all(result.successful() for result in threads.map(_apply, range(count)))
    if number:
        die(number)


@app.task(acks_late=True, reject_on_worker_lost=True)
def die_once(marker: str) -> str:
    """Dies of SIGKILL in its first run, is put back into the queue, and ends well."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return "well"


@app.task(acks_late=True, reject_on_worker_lost=True)
def poison(marker: str, times: int, size_bytes: int) -> str:
    """Dies of SIGKILL in each of its first runs, with so much memory, and ends well at last."""
    with Path(marker).open("ab+") as file:
        if file.tell() >= times:
            return "well"
        file.write(b"x")
    held = b"x" * size_bytes
    time.sleep(1.0 if held else 0)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)
    return "never"


@app.task
def rss_bytes() -> int:
    """RSS of its process by the kernel."""
    return _rollup(os.getpid())["rss"]


@app.task
def write_inherited() -> dict[str, int]:
    """Writes to each page that its process shares with main; its sizes by the kernel."""
    for at in range(0, len(INHERITED), 4096):
        INHERITED[at] = 1
    return _rollup(os.getpid())


@app.task
def take_note(text: str) -> int:
    """Reads its message."""
    return len(text)


_HOLDER = """
import sys, time
held = b"x" * int(sys.argv[1])
print("holds", flush=True)
time.sleep(float(sys.argv[2]))
"""


def _start_holder(size_bytes: int, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-S", "-c", _HOLDER, str(size_bytes), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _fork_holder(size_bytes: int, seconds: float) -> int:
    """A fork that holds as much, beside what it shares."""
    ready, said = os.pipe()
    pid = os.fork()
    if not pid:
        held = b"x" * size_bytes
        os.write(said, b"!")
        time.sleep(seconds)
        os._exit(len(held) and 0)
    os.read(ready, 1)
    os.close(ready)
    os.close(said)
    return pid


@app.task
def with_processes(size_bytes: int, seconds: float) -> dict[int, dict[str, int]]:
    """Starts a program and a fork that hold memory, and waits; their sums by the kernel."""
    program, pid = _start_holder(size_bytes, seconds + 60), _fork_holder(size_bytes, seconds + 60)
    time.sleep(seconds)
    sizes = {each: _rollup(each) for each in (program.pid, pid)}
    program.kill()
    program.wait()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return sizes


@app.task
def leave_processes(size_bytes: int, how: str) -> list[int]:
    """Starts a program that stays, as a child or as an orphan of a shell."""
    if how == "child":
        return [_start_holder(size_bytes, 120).pid]
    words = shlex.join([sys.executable, "-S", "-c", _HOLDER, str(size_bytes), "120"])
    command = f"{words} >/dev/null 2>&1 & echo $!; sleep {2 if how == 'slowly' else 0}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True)
    return [int(done.stdout)]


def _rollup(pid: int) -> dict[str, int]:
    """RSS and unique memory of a process by ``smaps_rollup``."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (x.partition(":") for x in lines)
    }
    return {"rss": sizes["Rss"], "unique": sizes["Private_Clean"] + sizes["Private_Dirty"]}


@app.task
def grow(step_bytes: int, steps: int, pause_s: float) -> None:
    """Takes more and more memory, and gives it back."""
    held = []
    for _ in range(steps):
        held.append(b"x" * step_bytes)
        time.sleep(pause_s)


@app.task
def leave(code: Any) -> None:
    """Ends its process by itself."""
    sys.exit(code)


@app.task
def leave_by_exception(code: int) -> None:
    """Ends its process by itself, past ``sys.exit``, which billiard watches."""
    raise SystemExit(code)


@app.task
def leave_at_once(code: int) -> None:
    """Ends its process by itself, without a word to anybody."""
    os._exit(code)


@app.task
def fail() -> None:
    """Raises."""
    raise ValueError("as it should")


@app.task
def fail_holding(size_bytes: int) -> None:
    """Raises, with memory in its frame."""
    held = bytearray(size_bytes)  # what fail_holding holds
    raise ValueError(f"{len(held)} bytes, as it should")


@app.task(bind=True, max_retries=1)
def retry_holding(self: Any, size_bytes: int) -> None:
    """Is retried once, with memory in its frame, and fails."""
    held = bytearray(size_bytes)  # what retry_holding holds
    raise self.retry(countdown=0, exc=ValueError(f"{len(held)} bytes, as it should"))


@app.task
def outer(size_bytes: int) -> None:
    """Calls another task eagerly."""
    keep.apply(args=(size_bytes,))


@app.task(soft_time_limit=1)
def overdue() -> str:
    """Runs into its soft time limit."""
    try:
        time.sleep(20)
    except BaseException as error:
        return type(error).__name__
    return "in time"


@app.task(time_limit=1)
def stuck() -> None:
    """Runs into its hard time limit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(20)


@app.task
def close_descriptors() -> None:
    """Closes what it does not own, as a careless daemon library does."""
    os.closerange(800, 1024)


def _users_file() -> int:
    return os.open(_USERS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


_USERS_FILE = Path(os.environ.get("TEST_MARKERS", "."), "users-file")
TAKEN: list[int] = []


@app.task
def take_descriptors(how: str) -> None:
    """Closes what it does not know and has other files under all numbers, or under high ones."""
    if how == "closes all":
        os.closerange(40, 65_536)
        TAKEN.extend(_users_file() for _ in range(1_100))
        return
    if how == "a file":
        number = _users_file()
    else:
        number = os.pipe()[1]
        os.set_blocking(number, False)
        with suppress(BlockingIOError):
            while True:
                os.write(number, bytes(4_096))
        os.set_blocking(number, True)
    for high in range(899, 960):
        os.dup2(number, high)


@app.task
def users_bytes() -> int:
    """How many bytes are in the user's file, none of which the user has written."""
    return _USERS_FILE.stat().st_size if _USERS_FILE.exists() else 0


@app.task
def reap_all() -> list[int]:
    """Forks twice and waits until there are no children; those that it met and does not know."""
    own = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            os._exit(0)
        own.append(pid)
    met = []
    with suppress(ChildProcessError):
        while True:
            met.append(os.wait()[0])
    return [pid for pid in met if pid not in own]


@app.task
def has_children() -> bool:
    """Whether its process has a child, running or ended."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


@app.task
def multiply(size: int) -> int:
    """Computes with NumPy, whose OpenBLAS starts threads; how many threads there are by then."""
    import numpy

    matrix = numpy.ones((size, size))
    assert (matrix @ matrix)[0, 0] == size
    return sum(1 for _ in Path("/proc/self/task").iterdir())


@app.task
def start_thread_of(library: str) -> None:
    """Loads a C library that starts a thread of its own."""
    ctypes.CDLL(library).begin_resting()


@app.task
def high_water_kib() -> int:
    """The peak of its process as everybody reads it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _spike(**_: Any) -> None:
    bytearray(int(os.environ["TEST_SPIKE_BYTES"]))


if "TEST_SPIKE_BYTES" in os.environ:
    # As a child that loads a model, before it has a task.
    signals.worker_process_init.connect(_spike, weak=False)


def _instrument_opentelemetry(**_: Any) -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _instrument_celery() -> None:
    from opentelemetry.instrumentation.celery import CeleryInstrumentor

    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


def _instrument_memory(**_: Any) -> None:
    CeleryMemoryInstrumentor().instrument()


if "TEST_EXECUTABLE" in os.environ:
    sys.executable = os.environ["TEST_EXECUTABLE"]
HOW = os.environ.get("TEST_INSTRUMENT", "module")
if HOW == "module":
    _instrument_memory()
elif HOW == "worker_process_init":
    signals.worker_process_init.connect(_instrument_memory, weak=False)
elif HOW == "spans only":
    signals.worker_process_init.connect(_instrument_opentelemetry, weak=False)
    _instrument_memory()
elif HOW == "celery first":
    signals.worker_process_init.connect(_instrument_opentelemetry, weak=False)
    _instrument_celery()
    _instrument_memory()
elif HOW == "memory first":
    signals.worker_process_init.connect(_instrument_opentelemetry, weak=False)
    _instrument_memory()
    _instrument_celery()
