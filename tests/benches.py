"""Stand-ins for a model that is timed: made by name in a process of their own, without torch."""

import os
import signal

from angels_share.errors import UserError

PROVENANCE = {
    "version": "1.0",
    "commit": None,
    "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
    "machine": {"processor": "a chip", "cores": 2, "system": "Linux x86_64", "python": "3.11"},
    "device": "cpu",
}


class Quiet:
    """Answers at once; `calls` are what it was asked, by all of them in turn."""

    seconds = 0.001

    def __init__(self, order, calls=None):
        self.order, self.calls = order, calls if calls is not None else []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.calls.append((self.order.name, "closed"))

    def facts(self):
        sizes = {"parameters": 10, "with_head": 12, "file_bytes": None, "peak_bytes": os.getpid()}
        return {**sizes, "provenance": PROVENANCE}

    def warm(self, threads):
        self.calls.append((self.order.name, "warm", threads))

    def timed(self, threads, batch_size):
        self.calls.append((self.order.name, threads, batch_size))
        return [self.seconds * threads * batch_size] * 4

    def waited(self):
        return None


class Refusing(Quiet):
    def __init__(self, order):
        raise UserError(f"{order.name}: is none of ours")


class Failing(Quiet):
    def timed(self, threads, batch_size):
        raise ValueError("a kernel is missing")


class Dying(Quiet):
    def warm(self, threads):
        os.kill(os.getpid(), signal.SIGKILL)
