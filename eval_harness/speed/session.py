"""One timing session: models side by side on STS-B's dev set. Imports no torch.

    python -m eval_harness speed --model bert distilbert --random_weights --synthetic

Each model has its own process. Within every repeat the models are timed in turn, each time in
another order, so that a machine that slows down affects all of them alike.
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
from angels_share.hardware import processor_flags
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
_LOG_SECONDS = 60.0  # between updates of the progress bar in a file
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

_Condition = tuple[int, int]
"""Number of threads and batch size."""
_Passes = dict[_Condition, list[list[float]]]
"""By condition, for each repeat the seconds of each batch."""


def timed(
    requested: Sequence[Request],
    setup: Setup,
    open_bench: Callable[[Request], AbstractContextManager[Bench]],
) -> Session:
    """Time models in turn.

    Args:
        requested: the models and their inputs.
        setup: the settings: repeats, numbers of threads, batch sizes.
        open_bench: returns the bench of a model, as a context manager.

    Returns:
        The session, not yet saved.

    Raises:
        UserError: a model can't be loaded, or can't process the pairs.
        RunFailed: a model's process died.
    """
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        benches = [stack.enter_context(open_bench(request)) for request in requested]
        facts = [bench.facts() for bench in benches]
        passes = _in_turn(benches, setup)
        waits = [wait for bench in benches if (wait := bench.waited()) is not None]
    provenance = facts[0]["provenance"]
    libraries = [each["provenance"]["libraries"] for each in facts]
    return Session(
        models=tuple(map(_timed, requested, facts, passes)),
        setup=setup,
        machine=_machine(provenance),
        version=provenance["version"],
        commit=provenance["commit"],
        libraries={name: version for each in libraries for name, version in each.items()},
        environment={name: os.environ[name] for name in _WAIT_VARIABLES if name in os.environ},
        load=round(load, 2),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        waited=round(max(waits), 3) if waits else None,
        processor_flags=processor_flags(),
    )


def _in_turn(benches: Sequence[Bench], setup: Setup) -> list[_Passes]:
    """Make all passes and return those of each model."""
    passes: list[_Passes] = [{} for _ in benches]
    steps = 1 + len(setup.batch_sizes) * setup.repeats  # 1 for warming up
    with _bar(len(benches) * len(setup.threads) * steps) as bar:
        for threads in setup.threads:
            for bench in benches:
                bench.warm(threads)
                bar.update()
            for repeat in range(setup.repeats):
                for size in setup.batch_sizes:
                    for number in rotated(len(benches), repeat):
                        seconds = benches[number].timed(threads, size)
                        passes[number].setdefault((threads, size), []).append(seconds)
                        bar.update()
    return passes


def rotated(count: int, by: int) -> list[int]:
    """Return 0 to count - 1 rotated: 0, 1, 2 by 0; 1, 2, 0 by 1; and so on."""
    return [(number + by) % count for number in range(count)]


def _bar(count: int) -> Any:
    return tqdm.tqdm(
        total=count,
        desc="passes",
        file=sys.stderr,
        delay=_BAR_AFTER_SECONDS,
        smoothing=0,  # passes differ, so the mean of all predicts better than the last one
        mininterval=1 if sys.stderr.isatty() else _LOG_SECONDS,
    )


def _timed(request: Request, facts: dict[str, Any], passes: _Passes) -> Timed:
    sizes = ("parameters", "with_head", "file_bytes", "file_dtype", "peak_bytes")
    return Timed(
        name=request.name,
        key=request.key,
        random_weights=request.model is None,
        backend=request.backend,
        timings=tuple(_timing(condition, repeats) for condition, repeats in passes.items()),
        **{name: facts[name] for name in sizes},
    )


def _timing(condition: _Condition, repeats: Sequence[Sequence[float]]) -> Timing:
    threads, batch_size = condition
    milliseconds = 1000 * np.concatenate([np.asarray(seconds) for seconds in repeats])
    p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, (50, 90, 99)))
    passes = tuple(float(sum(seconds)) for seconds in repeats)
    return Timing(threads, batch_size, passes, p50, p90, p99)


def _machine(provenance: dict[str, Any]) -> Machine:
    """Return the machine; a processor without a name is identified by a hash of the host's name."""
    machine = provenance["machine"]
    processor = machine["processor"] or f"unknown processor {hash_of(platform.node())}"
    return Machine(processor, machine["cores"], machine["system"], provenance["device"])
