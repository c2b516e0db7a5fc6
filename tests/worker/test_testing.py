"""`assert_no_leak` in a project of its own, by the real pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import ctypes, functools, logging, mmap, os, sys, threading, time, warnings
from celery import Celery

app = Celery("shop", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1")
SEEN, FILES, EVENTS, MAPPED, CACHE = [], [], [], [], {}
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

@app.task
def keeps(user):
    SEEN.append({"user": user, "numbers": [1, 2, len(SEEN)]})  # the line

@app.task
def opens(user):
    FILES.append(open(os.devnull))

@app.task
def starts_threads(user):
    event = threading.Event()
    threading.Thread(target=event.wait, daemon=True).start()
    EVENTS.append(event)

@app.task
def keeps_native(user):
    malloc(2_000)

@app.task
def maps(user):
    mapped = mmap.mmap(-1, 1 << 18)
    mapped.write(b"x" * (1 << 18))
    MAPPED.append(mapped)

@app.task
def warms_up(user):
    import decimal, xml.dom.minidom
    CACHE.setdefault(len(CACHE) if len(CACHE) < 100 else 0, "x" * 1_000)
    logging.getLogger("shop").warning("seen %s", user)
    warnings.warn("old", DeprecationWarning)
    print("printed")

@app.task
def changes_its_argument(users):
    users.append("x" * 1_000)

@app.task
def leaves_garbage(user):
    cycle = [user]
    cycle.append(cycle)

@app.task(bind=True, max_retries=2)
def retries(self, user):
    raise self.retry(exc=ValueError(user), countdown=100)

@app.task
def raises(user):
    raise ValueError(f"no {user}")

@app.task
def hangs_when_traced(user):
    import tracemalloc
    SEEN.append({"user": user})
    if tracemalloc.is_tracing():
        time.sleep(600)

@app.task
def hangs(user):
    time.sleep(600)

@app.task
def exits(user):
    os._exit(3)

@app.task
def ends_the_program(user):
    sys.exit(4)

@app.task
def crashes(user):
    ctypes.string_at(0)
"""


def run_pytest(project: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs one test file in a project that has nothing but the application."""
    (project / "shop.py").write_text(APP)
    (project / "test_shop.py").write_text(f"import shop\n{test}\n")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def failure(project: Path, call: str, *options: str) -> str:
    """How a test with this call of the fixture fails: what its error says."""
    ran = run_pytest(project, f"def test_it(assert_no_leak):\n    {call}", *options)
    assert "1 failed" in ran.stdout, ran.stdout + ran.stderr
    lines = [line[1:].strip() for line in ran.stdout.splitlines() if line.startswith("E  ")]
    return "\n".join(lines)


def line_of(text: str) -> int:
    return 1 + next(at for at, line in enumerate(APP.splitlines()) if text in line)


def test_a_leak_of_objects_fails_with_its_rate_holder_and_line(tmp_path: Path) -> None:
    said = failure(tmp_path, 'assert_no_leak(shop.keeps, ("a",))')
    assert re.search(r"LeakError: shop\.keeps leaks \d+ B a run \(\d+ B to \d+ B, 240 runs", said)
    assert "held by shop.SEEN → list[…]" in said
    assert f"Allocated at shop.py:{line_of('# the line')} in keeps (100% of it)." in said
    assert "assert_no_leak(…, runs=3000)" in said


def test_a_leak_is_told_though_the_look_at_where_it_is_takes_too_long(tmp_path: Path) -> None:
    said = failure(tmp_path, 'assert_no_leak(shop.hangs_when_traced, ("a",), timeout_s=25)')
    assert "LeakError: shop.hangs_when_traced leaks" in said
    assert "held by shop.SEEN" in said
    assert "Allocated at" not in said


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("opens", ("leaks 1 open file a run", "held by shop.FILES", "in opens")),
        ("starts_threads", ("leaks 1 thread a run", "in starts_threads, through threading.py:")),
        ("keeps_native", ("leaks 2.0 KiB a run", "Native memory, which no Python object")),
        ("maps", ("Mapped memory, which no allocator accounts for", "held by shop.MAPPED")),
    ],
)
def test_each_kind_of_leak_fails_with_what_it_is(
    tmp_path: Path, task: str, words: tuple[str, ...]
) -> None:
    said = failure(tmp_path, f'assert_no_leak(shop.{task}, ("a",))')
    assert [each for each in words if each not in said] == [], said


def test_what_warms_up_or_waits_for_the_collector_or_raises_what_it_may_is_no_leak(
    tmp_path: Path,
) -> None:
    ran = run_pytest(
        tmp_path,
        """
import threading, pytest
from otel_celery_memory.testing import assert_no_leak as check

@pytest.mark.parametrize("task", ["warms_up", "leaves_garbage"])
def test_healthy(assert_no_leak, task):
    assert_no_leak(getattr(shop, task), ("a",))

def test_an_argument_is_a_new_one_in_each_run():
    check(shop.changes_its_argument, ([],))

def test_named_arguments():
    check(shop.changes_its_argument, kwargs={"users": []}, runs=60)

def test_expected_exceptions():
    check(shop.raises, ("a",), raises=ValueError)
    check(shop.retries, ("a",), raises=ValueError)

def test_in_eager_mode():
    shop.app.conf.update(task_always_eager=True, task_eager_propagates=True)
    check(shop.leaves_garbage, ("a",), runs=60)

def test_beside_other_threads():
    with_lock = threading.Event()
    thread = threading.Thread(target=with_lock.wait)
    thread.start()
    check(shop.leaves_garbage, ("a",), runs=60)
    with_lock.set()
    thread.join()

def test_what_the_test_has_replaced(monkeypatch):
    monkeypatch.setattr(shop, "malloc", lambda size: None)
    done = []
    check(shop.keeps_native, ("a",), set_up=lambda: done.append(1))
    assert done == []
""",
    )
    assert "8 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            'shop.raises, ("a",)',
            ("shop.raises raised ValueError in run 1: no a", "in raises"),
        ),
        (
            'shop.hangs, ("a",), timeout_s=10',
            ("shop.hangs was not through after 10 s, in run 1 of 300", "in hangs"),
        ),
        ('shop.exits, ("a",)', ("shop.exits ended its process with exit code 3 in run 1 of 300",)),
        (
            'shop.keeps, ("a",), set_up=lambda: shop.raises.run("set up")',
            ("set_up raised ValueError: no set up", "in raises"),
        ),
        ('shop.ends_the_program, ("a",)', ("raised SystemExit in run 1: 4",)),
        ('shop.crashes, ("a",)', ("was ended by SIGSEGV in run 1 of 300", "in crashes")),
        (
            "shop.keeps, (object(),)",
            ("the arguments of shop.keeps cannot be sent to a worker: its serializer (json)",),
        ),
    ],
)
def test_a_task_that_cannot_be_measured_is_told_from_one_that_leaks(
    tmp_path: Path, call: str, words: tuple[str, ...]
) -> None:
    said = failure(tmp_path, f"assert_no_leak({call})")
    assert "NotMeasuredError" in said
    assert [each for each in words if each not in said] == [], said


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("print", "TypeError: <built-in function print> is no task of Celery"),
        ("shop.keeps, runs=59", "ValueError: 59 runs say nothing: at least 60 are needed"),
        ("shop.keeps, timeout_s=0", "ValueError: timeout_s is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, call: str, words: str) -> None:
    assert words in failure(tmp_path, f"assert_no_leak({call})")


def test_a_run_that_does_not_use_it_imports_and_connects_nothing(tmp_path: Path) -> None:
    ran = run_pytest(
        tmp_path,
        """
import sys
from celery import signals

def test_it(request):
    ours = sorted(name for name in sys.modules if name.startswith("otel_celery_memory"))
    assert ours == [
        "otel_celery_memory",
        "otel_celery_memory.testing",
        "otel_celery_memory.testing.errors",
        "otel_celery_memory.testing.plugin",
    ]
    assert "opentelemetry" not in sys.modules

def test_a_task_is_tested_without_receivers_here(assert_no_leak):
    assert_no_leak(shop.leaves_garbage, ("a",), runs=60)
    assert not signals.task_prerun.receivers and not signals.task_postrun.receivers
    assert shop.SEEN == []
""",
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_pytest_lists_the_fixture_with_its_sentence(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, "", "--fixtures")
    assert "assert_no_leak" in ran.stdout
    assert "Run a Celery task some hundred times in a process of its own" in ran.stdout
