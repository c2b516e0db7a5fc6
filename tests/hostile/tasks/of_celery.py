"""Tasks that use what Celery offers, to its edges."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Task, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.worker.request import Request

from tests.hostile.scenarios import EVERY_POOL, PREFORK, hostile


class _OwnRequest(Request):  # type: ignore[misc]
    """Tells of what became of a task, in a file."""

    def on_success(self, *args: Any, **kwargs: Any) -> Any:
        Path(self.args[0], "success").write_text(self.name)
        return super().on_success(*args, **kwargs)

    def on_failure(self, *args: Any, **kwargs: Any) -> Any:
        Path(self.args[0], "failure").write_text(self.name)
        return super().on_failure(*args, **kwargs)


class _RequestingTask(Task):  # type: ignore[misc]
    Request = _OwnRequest


class _TellingTask(Task):  # type: ignore[misc]
    """Has every hook that Celery calls, and is called itself."""

    calls = 0

    def _tell(self, args: Any, what: str) -> None:
        with Path(args[0], "calls").open("a") as file:
            file.write(f"{what}\n")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._tell(args, "__call__")
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        self._tell(args, "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        self._tell(args, f"on_success {retval}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._tell(args, f"on_failure {exc!r}")

    def after_return(self, status: str, retval: Any, task_id: str, *args: Any) -> None:
        self._tell(args[0], f"after_return {status}")


class _UnwillingTask(Task):  # type: ignore[misc]
    """Is false, equal to nothing, and does not let itself be shown."""

    def __eq__(self, other: object) -> bool:
        return False

    # Celery itself hashes a task where a signal of it has a receiver, whoever that is.
    __hash__ = Task.__hash__

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


class _EndError(BaseException):
    """Not an `Exception`."""


class _UnshowableError(Exception):
    """Cannot be made text of."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def _rows() -> int:
    return len([{"number": number} for number in range(100)])


@hostile(pools=EVERY_POOL, task={"base": _RequestingTask})
def has_a_request_class_of_its_own(here: str) -> int:
    """In the main process, which tells it how it ended."""
    return _rows()


@hostile(pools=EVERY_POOL, task={"base": _RequestingTask})
def fails_with_a_request_class_of_its_own(here: str) -> None:
    """The same where it fails."""
    raise ValueError("as it should")


@hostile(pools=EVERY_POOL, task={"base": _TellingTask})
def is_told_of_all_that_happens(here: str) -> int:
    """Every hook once, in Celery's order."""
    return _rows()


@hostile(pools=EVERY_POOL, task={"base": _TellingTask})
def is_told_of_its_failure(here: str) -> None:
    """The same where it fails."""
    raise KeyError("as it should")


@hostile(pools=EVERY_POOL, task={"base": _UnwillingTask})
def is_false_and_not_to_be_shown(here: str) -> int:
    """Nor equal to itself."""
    return _rows()


@hostile(pools=EVERY_POOL, task={"name": "hostile." + "long" * 2500})
def has_a_very_long_name(here: str) -> int:
    """Ten thousand characters, which fit in no frame."""
    return _rows()


@hostile(pools=EVERY_POOL, task={"name": "hostile \n\t%s {0} \u2028 ￿ \N{SKULL} é \x07"})
def has_an_odd_name(here: str) -> int:
    """Line ends, formats, and what is no character."""
    return _rows()


@hostile(pools=EVERY_POOL, message={"task_id": "id" * 4000}, runs=1)
def has_a_very_long_id(here: str) -> int:
    """Eight thousand characters."""
    return _rows()


@hostile(pools=EVERY_POOL, message={"task_id": "\n %s \N{SKULL} \u2028 {0}"}, runs=1)
def has_an_odd_id(here: str) -> int:
    """No UUID at all."""
    return _rows()


@hostile(pools=EVERY_POOL, message={"task_id": "the same"}, runs=3)
def has_an_id_that_is_used_again(here: str) -> int:
    """Run after run."""
    return _rows()


@hostile(pools=EVERY_POOL)
def calls_others_inside_itself(here: str) -> list[object]:
    """Thirty deep."""

    def inner(depth: int) -> list[object]:
        from tests.hostile.app import app

        @app.task(name=f"hostile.inner{depth}")
        def nested() -> Any:
            return inner(depth - 1) if depth else _rows()

        result = nested.apply()
        return [depth, result.state, *(result.result if depth else [result.result])]

    return inner(30)


@hostile(pools=EVERY_POOL)
def calls_others_that_fail_inside_itself(here: str) -> list[str]:
    """Their exceptions are kept, or thrown."""
    from tests.hostile.app import app

    @app.task(name="hostile.fails_inside")
    def fails() -> None:
        raise LookupError("inside")

    kept = fails.apply()
    try:
        fails.apply(throw=True)
    except LookupError as error:
        return [kept.state, repr(kept.result), repr(error)]
    return []


@hostile(pools=EVERY_POOL)
def runs_a_group_inside_itself(here: str) -> list[object]:
    """Of eager calls."""
    from tests.hostile.app import nothing

    found: list[object] = group(nothing.si() for _ in range(20)).apply().get()
    return found


@hostile(pools=EVERY_POOL, task={"bind": True})
def sees_its_request(self: Any, here: str) -> dict[str, object]:
    """As the message said."""
    request = self.request
    return {
        "called_directly": request.called_directly,
        "is_eager": request.is_eager,
        "retries": request.retries,
        "headers": request.headers,
        "timelimit": request.timelimit,
        "keys": sorted(vars(request)),
        "args": len(request.args),
    }


@hostile(pools=EVERY_POOL, task={"bind": True, "max_retries": 2, "default_retry_delay": 0})
def tries_again(self: Any, here: str) -> int:
    """Twice, and succeeds."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@hostile(pools=EVERY_POOL, task={"bind": True, "max_retries": 1})
def tries_again_and_fails(self: Any, here: str) -> None:
    """Once more than it may."""
    raise self.retry(countdown=0, exc=OSError("as it should"))


@hostile(pools=EVERY_POOL, task={"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": 0}})
def is_tried_again_by_itself(here: str) -> int:
    """Until its directory has three files."""
    count = len(list(Path(here).iterdir()))
    Path(here, str(count)).touch()
    if count < 2:
        raise ValueError("again")
    return count


@hostile(pools=EVERY_POOL)
def is_ignored(here: str) -> None:
    """It has no result."""
    raise Ignore


@hostile(pools=EVERY_POOL, task={"acks_late": True})
def is_rejected(here: str) -> None:
    """It has no result, and is not put back."""
    raise Reject("as it should", requeue=False)


@hostile(pools=EVERY_POOL, task={"bind": True})
def says_how_far_it_is(self: Any, here: str) -> str:
    """A state of its own on the way."""
    self.update_state(state="HALFWAY", meta={"at": 1})
    return str(self.AsyncResult(self.request.id).state)


@hostile(pools=EVERY_POOL, task={"bind": True})
def is_replaced_by_another(self: Any, here: str) -> None:
    """What it was is another's result."""
    from tests.hostile.app import nothing

    raise self.replace(nothing.si())


@hostile(pools=EVERY_POOL, message={"expires": datetime(2020, 1, 1, tzinfo=timezone.utc)}, runs=1)
def comes_too_late(here: str) -> int:
    """It is revoked."""
    return _rows()


@hostile(pools=EVERY_POOL)
def fails(here: str) -> None:
    """With something that has a cause."""
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("then") from error


@hostile(pools=EVERY_POOL, task={"throws": (ValueError,)})
def fails_as_expected(here: str) -> None:
    """No traceback is logged."""
    raise ValueError("as it should")


@hostile(pools=EVERY_POOL)
def fails_with_what_cannot_be_shown(here: str) -> None:
    """Neither as text nor by pickle."""
    raise _UnshowableError(lambda: None)


@hostile(pools=EVERY_POOL)
def fails_by_recursion(here: str) -> None:
    """RecursionError, from the limit itself."""

    def deeper() -> None:
        deeper()

    deeper()


@hostile(pools=EVERY_POOL)
def stops_an_iteration(here: str) -> None:
    """An exception that generators take for their end."""
    raise StopIteration


@hostile(pools=EVERY_POOL)
def returns_what_is_no_json(here: str) -> object:
    """The result cannot be kept."""
    return object()


@hostile(pools=EVERY_POOL)
def returns_megabytes(here: str) -> str:
    """Five of them."""
    return "x" * (5 << 20)


@hostile(pools=EVERY_POOL, runs=200)
def is_one_of_very_many(here: str) -> int:
    """Sent all at once."""
    return _rows()


@hostile(spoils=True, long=True)
def raises_what_is_no_exception(here: str) -> None:
    """A BaseException of its own."""
    raise _EndError("as it should")


@hostile(pools=PREFORK, ends_worker=True)
def fails_for_lack_of_memory(here: str) -> None:
    """MemoryError, which Celery raises again in the main process."""
    raise MemoryError


@hostile(spoils=True, long=True)
def exits(here: str) -> None:
    """SystemExit, which ends a child."""
    raise SystemExit(3)


@hostile(spoils=True, long=True)
def is_interrupted(here: str) -> None:
    """As by a keyboard."""
    raise KeyboardInterrupt


@hostile(pools=PREFORK, runs=2, task={"soft_time_limit": 0.3})
def catches_its_time_limit(here: str) -> str:
    """Once, and no more."""
    caught = "never told"
    try:
        while True:
            _rows()
    except SoftTimeLimitExceeded:
        caught = "caught"
    for _ in range(3000):
        _rows()
    return caught


@hostile(pools=PREFORK, runs=2, task={"soft_time_limit": 0.3})
def fails_at_its_time_limit(here: str) -> None:
    """It is told once."""
    while True:
        _rows()


@hostile(pools=PREFORK, runs=3, task={"soft_time_limit": 0.3})
def meets_its_limit_among_others(here: str) -> str:
    """The limit strikes while it runs others inside itself, one after another.

    Celery swallows it in one run of six, where it strikes in the midst of a signal's receivers.
    """
    from tests.hostile.app import nothing

    until = time.monotonic() + 1

    def _applies_others() -> bool:
        try:
            while time.monotonic() < until:
                nothing.apply(throw=True)
        except SoftTimeLimitExceeded:
            return True
        return False

    _applies_others()
    return "told twice" if _applies_others() else "told once at most"


@hostile(pools=PREFORK, spoils=True, runs=2, task={"time_limit": 1})
def is_ended_at_its_time_limit(here: str) -> None:
    """Its child is killed."""
    while True:
        _rows()
