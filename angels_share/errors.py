"""The two ways a command can fail on purpose, each one line for the person at the keyboard."""


class UserError(Exception):
    """Bad input: the message is one line that says what was seen, where, and what to do.

    A command turns it into that line on standard error and status 2.
    """


class RunFailed(Exception):  # noqa: N818  (it names an outcome, like the line that it becomes)
    """The input was fine and the work failed: one line, status 1."""
