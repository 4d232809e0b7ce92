"""Stand-ins for a bench, without torch: made by name in their own process."""

import os
import signal

from angels_share.errors import UserError
from eval_harness.results.speed import Setup
from eval_harness.speed.request import Request

TINY = {
    "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
    "intermediate_size": 64, "vocab_size": 160, "max_position_embeddings": 64,
}  # fmt: skip

PROVENANCE = {
    "version": "1.0",
    "commit": None,
    "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
    "machine": {"processor": "a chip", "cores": 2, "system": "Linux x86_64", "python": "3.11"},
    "device": "cpu",
}


class Quiet:
    """Answers at once; `calls` records the calls of all benches that share it."""

    seconds = 0.001

    def __init__(self, request, calls=None):
        self.request, self.calls = request, calls if calls is not None else []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.calls.append((self.request.name, "closed"))

    def facts(self):
        sizes = {"parameters": 10, "with_head": 12, "file_bytes": None, "file_dtype": None,
                 "peak_bytes": os.getpid()}  # fmt: skip
        return {**sizes, "provenance": PROVENANCE}

    def warm(self, threads):
        self.calls.append((self.request.name, "warm", threads))

    def timed(self, threads, batch_size):
        self.calls.append((self.request.name, threads, batch_size))
        return [self.seconds * threads * batch_size] * 4

    def waited(self):
        return None


class Refusing(Quiet):
    def __init__(self, request):
        raise UserError(f"{request.name}: is none of ours")


class Failing(Quiet):
    def timed(self, threads, batch_size):
        raise ValueError("a kernel is missing")


class Dying(Quiet):
    def warm(self, threads):
        os.kill(os.getpid(), signal.SIGKILL)


def request(name="bert", **more):
    given = {
        "key": f"{name}-00000000", "model": None, "config": TINY, "tokenizer": None, "texts": None,
        "lengths": [5, 9, 7, 9], "max_seq_length": 64, "batch_sizes": (1, 2), "device": "cpu",
        "bf16": False,
    }  # fmt: skip
    return Request(name, **{**given, **more})


def setup(**more):
    given = {
        "source": None, "content": None, "pairs": 4, "full": False, "repeats": 3, "seed": 1,
        "max_seq_length": 64, "threads": (1, 2), "batch_sizes": (1, 8), "dtype": "float32",
    }  # fmt: skip
    return Setup(**{**given, **more})
