"""Commands from people to a running worker: a view, a capture, a mode of allocation tracing.

`requests` decides which process receives what: the main process receives ``celery inspect`` and
``celery control``, every process receives SIGURG if ``capture_signal`` is on. Inside, commands are
validated and limited in rate before they are written to the control page.
"""

__all__ = ["requests"]
