"""A frozen machine: /proc with process 41, and a cgroup mount."""

from __future__ import annotations

from pathlib import Path

V1_UNLIMITED = "9223372036854771712"
MIB = 1 << 20
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max data size             {data:<20} unlimited            bytes
Max open files            {files:<20} 1048576              files
Max address space         {address_space:<20} unlimited            bytes
Max file locks            unlimited            unlimited            locks
"""
BAD_NUMBERS = ["", "lots", "-5", "1e9", "9" * 20, "9" * 5_000, "\u00b2", "\0", "1 2", "x" * 10**6]
"""What is no number, or none that fits."""


class Machine:
    """Directories below a temporary one that say what the kernel would."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        (self.proc / "41").mkdir(parents=True)
        (self.proc / "self").mkdir()
        self.cgroup.mkdir()
        (self.proc / "meminfo").write_text("MemTotal:       16384000 kB\nMemFree:  1 kB\n")
        self.rlimits()

    def rlimits(
        self,
        address_space: object = "unlimited",
        data: object = "unlimited",
        files: object = 1024,
        pid: int = 41,
    ) -> None:
        """The limits of a process."""
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "limits").write_text(
            LIMITS.format(address_space=address_space, data=data, files=files)
        )

    def member_of(self, *lines: str) -> None:
        """The lines of the process's cgroup file."""
        (self.proc / "41" / "cgroup").write_text("".join(line + "\n" for line in lines))

    def v2(self, path: str, used: object, limit: object, **more: object) -> None:
        """A cgroup v2 directory; further files by their names, with ``_`` for the dot."""
        self._files(
            self.cgroup / path, {"memory.current": used, "memory.max": limit, **_dotted(more)}
        )

    def v1(self, path: str, used: object, limit: object, **more: object) -> None:
        """A directory of cgroup v1's memory controller."""
        names = {"memory.usage_in_bytes": used, "memory.limit_in_bytes": limit, **_dotted(more)}
        self._files(self.cgroup / "memory" / path, names)

    @staticmethod
    def _files(directory: Path, contents: dict[str, object]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (directory / name).write_text(f"{content}\n")


def _dotted(more: dict[str, object]) -> dict[str, object]:
    return {f"memory.{name.replace('__', '.')}": content for name, content in more.items()}
