"""Times models side by side on STS-B's dev set: sizes, latency, throughput, memory. No torch here.

    python -m eval_harness speed --model bert distilbert --random_weights --synthetic

Each model has a process of its own. They take turns within every repeat, each time in another
order, so that a machine that grows slower is slower for all of them.
"""

import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import Any

import numpy as np
import tqdm

from angels_share.files import hash_of
from eval_harness.results.speed import (
    Machine,
    Session,
    Setup,
    Timed,
    Timing,
)
from eval_harness.speed.bench_process import Bench
from eval_harness.speed.request import Request

_BAR_AFTER_SECONDS = 10.0
_LOG_SECONDS = 60.0  # between two states of the bar in a log
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

_Kind = tuple[int, int]
"""Threads and batch size."""
_Passes = dict[_Kind, list[list[float]]]
"""Seconds of each batch, by repeat."""


def timed(
    requested: Sequence[Request],
    setup: Setup,
    open_bench: Callable[[Request], AbstractContextManager[Bench]],
) -> Session:
    """Times models in turn.

    Args:
        requested: the models.
        setup: how often, with how many threads, in batches of which sizes.
        open_bench: gives a model that is ready to be timed.

    Returns:
        The session, not yet saved.

    Raises:
        UserError: a model can't be loaded, or can't read the pairs.
        RunFailed: a model's process died.
    """
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        benches = [stack.enter_context(open_bench(request)) for request in requested]
        facts = [bench.facts() for bench in benches]
        passes = _in_turn(benches, setup)
        waits = [wait for bench in benches if (wait := bench.waited()) is not None]
    made = facts[0]["provenance"]
    return Session(
        models=tuple(map(_timed, requested, facts, passes)),
        setup=setup,
        machine=_machine(made),
        version=made["version"],
        commit=made["commit"],
        libraries=made["libraries"],
        environment={name: os.environ[name] for name in _WAITING if name in os.environ},
        load=round(load, 2),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        waited=round(max(waits), 3) if waits else None,
    )


def _in_turn(benches: Sequence[Bench], setup: Setup) -> list[_Passes]:
    """Every pass of every model."""
    passes: list[_Passes] = [{} for _ in benches]
    each = 1 + len(setup.batch_sizes) * setup.repeats
    with _bar(len(benches) * len(setup.threads) * each) as bar:
        for threads in setup.threads:
            for bench in benches:
                bench.warm(threads)
                bar.update()
            for repeat in range(setup.repeats):
                for size in setup.batch_sizes:
                    for which in rotated(len(benches), repeat):
                        seconds = benches[which].timed(threads, size)
                        passes[which].setdefault((threads, size), []).append(seconds)
                        bar.update()
    return passes


def rotated(count: int, by: int) -> list[int]:
    """Whose turn it is: 0, 1, 2; then 1, 2, 0; and so on."""
    return [(place + by) % count for place in range(count)]


def _bar(count: int) -> Any:
    return tqdm.tqdm(
        total=count,
        desc="passes",
        file=sys.stderr,
        delay=_BAR_AFTER_SECONDS,
        smoothing=0,  # passes differ: the mean of all tells more than the last one
        mininterval=1 if sys.stderr.isatty() else _LOG_SECONDS,
    )


def _timed(request: Request, facts: dict[str, Any], passes: _Passes) -> Timed:
    sizes = ("parameters", "with_head", "file_bytes", "peak_bytes")
    return Timed(
        name=request.name,
        key=request.key,
        random_weights=request.model is None,
        timings=tuple(_timing(kind, repeats) for kind, repeats in passes.items()),
        **{name: facts[name] for name in sizes},
    )


def _timing(kind: _Kind, repeats: Sequence[Sequence[float]]) -> Timing:
    threads, batch_size = kind
    each = 1000 * np.concatenate([np.asarray(seconds) for seconds in repeats])
    p50, p90, p99 = (float(value) for value in np.percentile(each, (50, 90, 99)))
    passes = tuple(float(sum(seconds)) for seconds in repeats)
    return Timing(threads, batch_size, passes, p50, p90, p99)


def _machine(made: dict[str, Any]) -> Machine:
    """Some processors have no name: then a machine is told from others by its own."""
    where = made["machine"]
    processor = where["processor"] or f"unknown processor {hash_of(platform.node())}"
    return Machine(processor, where["cores"], where["system"], made["device"])
