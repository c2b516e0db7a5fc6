"""What a test does in a forked process, as a child of the pool or a task would."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def in_a_fork(do: Callable[[], object]) -> int:
    """Do it in a forked process and wait for that; its pid. What fails there fails here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            do()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    return pid
