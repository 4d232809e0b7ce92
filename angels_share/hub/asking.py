"""Requests to the Hub: what is waited for, what is tried again, and the true reason of a failure.

A server's passing trouble (an answer 500 or 429, a connection cut in mid-answer) is tried again
with growing pauses, or after as long as the server says. What can't pass by itself (no network, no
answer in the client's own time, a wrong token, no such repository) is not.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from angels_share.errors import UserError

T = TypeVar("T")

TRIES = 5
LONGEST_PAUSE = 60.0
"""The longest pause that a server may ask for; with a longer one the command ends."""
QUIET_SECONDS = 2.0
"""How long a request may take before the screen says what is waited for."""
_PASSING = frozenset((408, 412, 425, 429, 500, 502, 503, 504))


class HubError(UserError):
    """The Hub can't give what was asked for, and the message says why."""


class NoNetworkError(HubError):
    """The Hub can't be reached, or isn't to be: what is in the cache still works."""


class MissingError(HubError):
    """The Hub has no such repository or revision, or none that this user may read."""


class NoRevisionError(MissingError):
    """The Hub has the repository, but not this commit, tag or branch of it."""


class DeniedError(HubError):
    """The Hub has it, but not for this user: a gate, or a wrong or too weak token."""


@dataclass(frozen=True)
class _Problem:
    """Why a request failed, as an error, and the pause after which it is worth another try."""

    error: HubError
    pause: float | None = None


def is_offline() -> bool:
    """Return whether the user asked the clients not to use the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the Hub's address, HF_ENDPOINT's where that is set."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def answer_seconds() -> float:
    """Return how long the Hub may take to answer: the clients' own limit, HF_HUB_ETAG_TIMEOUT."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_ETAG_TIMEOUT)


def ask(
    work: Callable[[], T], about: str, *, seconds: float | None = None, tries: int = TRIES
) -> T:
    """Do a request, again where its failure passes, and return its answer.

    Args:
        work: the request, by one of huggingface_hub's functions.
        about: what it is about, for the screen and for messages: "model distilbert/…".
        seconds: the time that one try may take in all, with finding the host's address, which no
            client limits; None for a download, whose client limits each wait itself.
        tries: how often it is tried at most.

    Raises:
        HubError: the true reason, in one line.
    """
    if is_offline():
        raise NoNetworkError(f"{about}: HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi  # noqa: F401  (loaded before any time is counted)

    for number in range(1, tries + 1):
        try:
            with _saying_what_is_waited_for(about):
                return _within(seconds, work)
        except UserError:
            raise
        except Exception as error:
            problem = _problem(error, about, number)
            if problem is None:
                raise
            if problem.pause is None or number == tries or problem.pause > LONGEST_PAUSE:
                raise problem.error from error
            say(f"{problem.error}; trying again in {problem.pause:.0f} s")
            time.sleep(problem.pause)
    raise AssertionError("the last try returns or raises")


class _TooLate(Exception):  # noqa: N818  (named after what happened)
    """There was no answer in the time that was given."""


def _within(seconds: float | None, work: Callable[[], T]) -> T:
    if seconds is None:
        return work()
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(work())
        except Exception as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    # A thread, since the time-outs of sockets don't cover resolving the host's name.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise _TooLate(f"no answer in {seconds:.0f} s")
    return answers[0]


@contextmanager
def _saying_what_is_waited_for(about: str) -> Iterator[None]:
    timer = threading.Timer(QUIET_SECONDS, say, [f"{about}: waiting for {endpoint()}"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(line: str) -> None:
    """Write a line to the screen, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _problem(error: Exception, about: str, number: int) -> _Problem | None:
    """Return why a request failed; None for what has nothing to do with the Hub."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # huggingface_hub's "not in the cache either"
    if isinstance(error, HfHubHTTPError):
        return _problem_of_answer(error, about, number)
    names = {kind.__name__ for kind in type(error).__mro__}
    silence = {
        "_TooLate": f"gave {error}",
        "ConnectError": f"can't be reached ({_innermost(error)})",
        "TimeoutException": "gave no answer in time",
    }
    if found := next((words for name, words in silence.items() if name in names), None):
        return _Problem(NoNetworkError(f"{about}: {endpoint()} {found}"))
    if isinstance(error, ConnectionError) and "client error" in str(error):  # hf-xet's, denied
        return _Problem(DeniedError(f"{about}: {_in_one_line(str(error))}"))
    if (
        isinstance(error, ConnectionError)
        or names & {"NetworkError", "ProtocolError"}
        or (isinstance(error, OSError) and "Consistency check failed" in str(error))
    ):
        what = _innermost(error)
        cut = HubError(f"{about}: the answer of {endpoint()} was cut off ({what})")
        return _Problem(cut, 2.0 ** (number - 1))
    return None


def _innermost(error: BaseException) -> str:
    """Return the system's own words: the clients wrap them several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error)
    return _in_one_line(text) if text else type(error).__name__


def _in_one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _problem_of_answer(error: Any, about: str, number: int) -> _Problem:
    response = error.response
    status, headers = response.status_code, response.headers
    said = _in_one_line(str(headers.get("X-Error-Message") or ""))
    if status in (401, 403, 404):
        return _Problem(_denial(error, about, status, said))
    meaning = {429: "too many requests", 412: "someone else changed it meanwhile"}
    words = meaning.get(status) or said or _in_one_line(getattr(error, "server_message", "") or "")
    words = words or ("a server error" if status >= 500 else "refused")
    failure = HubError(f"{about}: the Hub answers {status} ({words})")
    if status not in _PASSING:
        return _Problem(failure)
    pause = _asked_for(headers.get("Retry-After"))
    if pause is not None and pause > LONGEST_PAUSE:
        failure = HubError(f"{failure}, and asks to wait for {pause:.0f} s: try again then")
    return _Problem(failure, 2.0 ** (number - 1) if pause is None else pause)


def _denial(error: Any, about: str, status: int, said: str) -> HubError:
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return DeniedError(f"{about}: is gated: {_how_to_get_access(about)}")
    if status == 401 and _token_is_refused():  # the Hub says the same of what is missing
        return DeniedError(
            f"{about}: the Hub refuses your token, which is wrong or expired: `hf auth login` "
            "again, or set HF_TOKEN to a valid one"
        )
    if isinstance(error, RevisionNotFoundError):
        return NoRevisionError(f"{about}: the Hub has no such revision")
    if status == 403:
        reason = f" ({said})" if said else ""
        return DeniedError(f"{about}: the Hub doesn't let you or your token do this{reason}")
    return MissingError(f"{about}: the Hub has none that you may read")


def _asked_for(header: str | None) -> float | None:
    """Return the pause that a server asks for in seconds; a date isn't used on the Hub."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


def _how_to_get_access(about: str) -> str:
    kind, _, repo_id = about.partition(" ")
    folder = "datasets/" if kind == "dataset" else ""
    page = f"{endpoint()}/{folder}{repo_id.partition('@')[0]}"
    return f"ask for access on {page}, then `hf auth login`"


def _token_is_refused() -> bool:
    """Return whether the Hub knows no user of the token, if there is one."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        return False
    try:
        _within(answer_seconds(), lambda: HfApi().whoami())
    except Exception as error:  # noqa: BLE001  (any other failure says nothing of the token)
        return getattr(getattr(error, "response", None), "status_code", None) == 401
    return False
