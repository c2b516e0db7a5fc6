"""The directory of capture files: private, bounded, and without half-written files.

A capture names a program's tasks, files and sizes. A process with the worker's rights writes it, at
the request of anybody with access to the broker. So other users can neither read it nor redirect
the writing by a link or a predictable name.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from otel_celery_memory.captures.format import dump_capture
from otel_celery_memory.captures.model import Capture, CaptureError
from otel_celery_memory.captures.pprof import dump_pprof

CAPTURE_SUFFIX = ".capture.json.gz"
PPROF_SUFFIX = ".pprof.gz"
_PARTIAL_SUFFIX = ".partial"
_PARTIAL_MAX_AGE_S = 3600
"""The writer of an older partial file was killed."""
_OURS = re.compile(
    r"(?P<stem>\d{8}T\d{6}Z-[0-9a-f]{16})(?:\.capture\.json|\.pprof)\.gz(?P<partial>\.partial)?",
    re.ASCII,
)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CaptureDirectory:
    """Keeps at most ``keep`` captures, of at most ``keep_bytes`` in all; always the newest one.

    A missing directory is created, but not its parents: a mistyped path is an error, and who may
    enter the parents is not ours to decide. Tests pass ``write`` and ``token``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        keep: int = 20,
        keep_bytes: int = 256 << 20,
        *,
        write: Callable[[int, memoryview], int] = os.write,
        token: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        # Absolute: a task may change the working directory. Without the final slash that Path
        # drops, a link at the end is never followed.
        self.path = Path(path).absolute()
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._write = write
        self._token = token

    def check(self) -> None:
        """Creates the directory if it is missing. Raises `CaptureError` if it cannot be used."""
        with self._opened():
            pass

    def save(self, capture: Capture, *, pprof: bool = False) -> Path:
        """Writes a capture, with ``pprof`` also a profile beside it; returns the capture's path.

        Waits for the disk. Raises `CaptureError` and leaves no file behind if it fails.
        """
        contents = {CAPTURE_SUFFIX: dump_capture(capture)}
        if pprof:
            contents[PPROF_SUFFIX] = dump_pprof(capture)
        taken = datetime.fromtimestamp(capture.taken_ns // 10**9, timezone.utc)
        stem = f"{taken:%Y%m%dT%H%M%SZ}-{self._token()}"
        with self._opened() as directory:
            try:
                self._write_all(directory, {stem + end: data for end, data in contents.items()})
            except OSError as error:
                raise self._unusable(f"cannot be written to: {error.strerror}") from None
            self._remove_old(directory, stem)
        return self.path / (stem + CAPTURE_SUFFIX)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        # Opened each time: a task of this process may close a descriptor that stays open.
        try:
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            directory = os.open(self.path, _DIRECTORY)
        except (OSError, ValueError) as error:
            raise self._unusable(self._why_not(error)) from None
        try:
            self._check(os.fstat(directory))
            yield directory
        finally:
            os.close(directory)

    def _check(self, found: os.stat_result) -> None:
        """Refuses a directory in which other users could add, replace or remove files."""
        if found.st_uid != os.geteuid():
            raise self._unusable(f"belongs to user {found.st_uid}, not to {os.geteuid()}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = stat.S_IMODE(found.st_mode)
            raise self._unusable(f"can be written to by others (mode {mode:04o}): chmod it to 0700")

    def _why_not(self, error: OSError | ValueError) -> str:
        number = getattr(error, "errno", None)
        if number == errno.ENOENT:
            return "cannot be made: the directory above it does not exist"
        if number in (errno.ENOTDIR, errno.ELOOP):
            return "is a symbolic link" if self.path.is_symlink() else "is not a directory"
        return f"cannot be used: {getattr(error, 'strerror', None) or error}"

    def _unusable(self, why: str) -> CaptureError:
        return CaptureError(f"capture directory {str(self.path)!a} {why}")

    def _write_all(self, directory: int, contents: dict[str, bytes]) -> None:
        """Writes all of the files, or none."""
        made: list[str] = []
        try:
            for name, data in contents.items():
                partial = name + _PARTIAL_SUFFIX
                fd = os.open(partial, _NEW_FILE, 0o600, dir_fd=directory)
                made.append(partial)
                try:
                    self._write_file(fd, data)
                finally:
                    os.close(fd)
            for name in contents:
                os.rename(name + _PARTIAL_SUFFIX, name, src_dir_fd=directory, dst_dir_fd=directory)
                made.append(name)
        except BaseException:
            for name in made:
                with suppress(OSError):
                    os.unlink(name, dir_fd=directory)
            raise

    def _write_file(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._write(fd, rest) :]
        # Some file systems report a full disk only here.
        os.fsync(fd)

    def _remove_old(self, directory: int, newest: str) -> None:
        """Removes our oldest captures beyond the bounds, and partial files of killed writers."""
        sizes: dict[str, int] = {}
        names: dict[str, list[str]] = {}
        with suppress(OSError):
            now = os.stat(newest + CAPTURE_SUFFIX, dir_fd=directory).st_mtime
            for name, stem, found in _ours(directory):
                if name.endswith(_PARTIAL_SUFFIX):
                    if now - found.st_mtime > _PARTIAL_MAX_AGE_S:
                        _unlink(directory, name)
                    continue
                sizes[stem] = sizes.get(stem, 0) + found.st_size
                names.setdefault(stem, []).append(name)
        kept_bytes = 0
        # The one just written comes first, even if another machine's clock is ahead.
        order = sorted(sizes, key=lambda stem: (stem == newest, stem), reverse=True)
        for kept, stem in enumerate(order, start=1):
            kept_bytes += sizes[stem]
            if stem != newest and (kept > self._keep or kept_bytes > self._keep_bytes):
                for name in names[stem]:
                    _unlink(directory, name)


def _ours(directory: int) -> Iterator[tuple[str, str, os.stat_result]]:
    """Name, stem and state of each regular file with a name of ours; links are not followed."""
    for name in os.listdir(directory):
        match = _OURS.fullmatch(name)
        if match is None:
            continue
        with suppress(FileNotFoundError):
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield name, match["stem"], found


def _unlink(directory: int, name: str) -> None:
    # Another worker with this directory may have removed it already.
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)
