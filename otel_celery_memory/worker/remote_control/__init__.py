"""What people ask of a running worker: a view, a capture, another mode of tracing.

`requests` is who listens in which process: the main process to ``celery inspect`` and ``celery
control``, any to SIGURG where that is switched on. Inside, commands are validated and limited in
rate before they are written to the control page.
"""

__all__ = ["requests"]
