"""Installs what the demo needs into an environment of its own, and shows how far it is.

`make demo` calls it where nothing is installed yet. It needs no more than a Python with ``venv``
and ``pip``; older ones than the demo needs must be able to read it, to say so.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("demo", "view")
_NEEDS = (3, 10)
_OPENING = """\
The demo runs a Celery worker that leaks memory, and says which task and which line it is.
First, and only once, what it needs is installed into {target} (Celery, OpenTelemetry, the view;
about 75 MiB), in mostly 10 to 30 seconds. Nothing is installed outside of that directory."""
_READ_PROJECT = """\
try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
needed = list(project["dependencies"])
for extra in {extras!r}:
    needed += project["optional-dependencies"][extra]
print("\\n".join(needed))
"""
_TAIL = 15
_LINE_EVERY_S = 2.0


def main() -> int:
    """Installs into the directory that is named; the exit code."""
    target = Path(sys.argv[1])
    if sys.version_info < _NEEDS:
        print("The demo needs Python 3.10 or later: make demo PYTHON=python3.12", file=sys.stderr)
        return 1
    print(_OPENING.format(target=target), flush=True)
    progress = Progress()
    try:
        progress.run("an environment of its own", [sys.executable, "-m", "venv", str(target)])
        python = str(target / "bin" / "python")
        read = [python, "-c", _READ_PROJECT.format(extras=EXTRAS)]
        needed = progress.run("what it needs", read)
        # The package itself is imported from here. What is imported is compiled as it is used.
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile"]
        progress.run("packages", [*pip, "--progress-bar=off", *needed])
    except StepError as error:
        progress.end()
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        progress.end()
        print("Not installed; make demo begins anew.", file=sys.stderr)
        return 130
    progress.end(f"Installed in {progress.elapsed_s:.0f} s.")
    return 0


class StepError(Exception):
    """A step failed; the message has the end of its output."""


class Progress:
    """Says what is being done and since when: in one line of a terminal, or line by line."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._in_place = sys.stdout.isatty()
        self._said_s = 0.0
        self._said = ""
        self._fetched = 0

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began_s

    def run(self, what: str, command: list[str]) -> list[str]:
        """Runs a command, and shows what it does; its output by lines. Raises `StepError`."""
        self._say(what, anew=True)
        output: list[str] = []
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        reading = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reading.start()
        try:
            while reading.is_alive() or not lines.empty():
                try:
                    line = lines.get(timeout=0.2).rstrip()
                except queue.Empty:
                    self._say(self._said)
                    continue
                output.append(line)
                self._note(line)
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code:
            end = "\n".join(output[-_TAIL:])
            raise StepError(f"{what}: {command[0]} ended with {code}:\n{end}")
        return [line for line in output if line]

    def end(self, text: str = "") -> None:
        """The last line."""
        if self._in_place:
            print("\r\033[K", end="")
        if text:
            print(text)
        sys.stdout.flush()

    def _note(self, line: str) -> None:
        """What a line of pip's output means."""
        words = line.split()
        if line.startswith("Collecting ") and len(words) > 1:
            self._fetched += 1
            name = re.split(r"[<>=~!;\[(]", words[1])[0]
            self._say(f"{self._fetched} packages fetched, now {name[:40]}")
        elif line.startswith("Installing collected packages"):
            self._say(f"unpacking {line.count(',') + 1} packages", anew=True)

    def _say(self, text: str, *, anew: bool = False) -> None:
        now_s = time.monotonic()
        self._said = text
        if self._in_place:
            print(f"\r\033[K  {self.elapsed_s:3.0f} s  {text} …", end="", flush=True)
        elif anew or now_s - self._said_s >= _LINE_EVERY_S:
            print(f"  {self.elapsed_s:3.0f} s  {text} …", flush=True)
        else:
            return
        self._said_s = now_s


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)


if __name__ == "__main__":
    sys.exit(main())
