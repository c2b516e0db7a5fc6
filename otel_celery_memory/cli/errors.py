"""The one error of the command line: a line for people and an exit code."""


class CommandError(Exception):
    """Something the user can mend; the message is one line."""

    exit_code = 2
