"""What a test of a task for leaks may raise."""


class LeakError(AssertionError):
    """The task leaks; the message is the verdict in words."""


class NotMeasuredError(Exception):
    """Whether the task leaks is not known, as its runs did not come to their end."""
