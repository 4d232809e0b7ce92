"""The two errors that commands raise on purpose; each is reported as one line."""


class UserError(Exception):
    """Bad input: the message is one line that says what was seen, where, and what to do.

    A command turns it into that line on standard error and status 2.
    """


class RunFailed(Exception):  # noqa: N818  (it names an outcome, like the line that it becomes)
    """Work that failed although its input was fine: one line and status 1."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return what an error of a library says as one line of at most so many characters."""
    return " ".join(str(error).split())[:limit]
