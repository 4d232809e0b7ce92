"""Variants in processes of their own, of which one works at a time: starting, asking, turns."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from benchmarks.peers import ROOT, Variant, why_absent

KEPT_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""Settings of glibc's allocator with which freed memory stays with the process, for reuse."""

WARM_UP = 2
"""Turns before the timed ones: after them an allocator that keeps memory asks for no more."""


class VariantFailedError(Exception):
    """A variant can't be run; the text is the reason, in one line."""


class Process:
    """A worker that is started, but may not have said yet that it is ready."""

    def __init__(
        self, variant: Variant, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start a worker.

        Raises:
            VariantFailedError: its environment is missing.
        """
        if reason := why_absent(variant):
            raise VariantFailedError(reason)
        self.variant = variant
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (as long as the process)
        self._process = subprocess.Popen(
            [variant.python, "-m", "benchmarks.worker", variant.name, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """Wait for its next line.

        Raises:
            VariantFailedError: it ended instead.
        """
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        raise VariantFailedError(said[-1] if said else f"ended with status {status}")

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Make it do something, and wait for the answer.

        Raises:
            VariantFailedError: it failed.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: `answer` says why
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def end(self) -> None:
        """End it, whatever it does, and wait for that."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(BrokenPipeError):  # what it never read
                if stream is not None:
                    stream.close()


@contextmanager
def started(
    variants: Sequence[Variant], arguments: Sequence[str], environment: Mapping[str, str]
) -> Iterator[tuple[dict[str, Process], dict[str, str], dict[str, Any]]]:
    """Start the variants' workers; yield them, why others are skipped, and what they run on.

    Args:
        variants: the variants; ours must not fail.
        arguments: of the workers, after the variant's name.
        environment: variables to set for them.

    Raises:
        VariantFailedError: ours failed.
    """
    processes: dict[str, Process] = {}
    skipped: dict[str, str] = {}
    try:
        for variant in variants:
            try:
                processes[variant.name] = Process(variant, arguments, environment)
            except VariantFailedError as error:
                skipped[variant.name] = str(error)
        answers = {}
        for name, process in list(processes.items()):
            with dropped_on_failure(name, processes, skipped):
                answers[name] = process.answer()
        yield processes, skipped, answers
    finally:
        for process in processes.values():
            process.end()


@contextmanager
def dropped_on_failure(
    name: str, processes: dict[str, Process], skipped: dict[str, str]
) -> Iterator[None]:
    """Turn a variant's failure within the block into its reason to be skipped; ours goes on."""
    try:
        yield
    except VariantFailedError as error:
        if name == "ours":
            raise
        skipped[name] = str(error)
        processes.pop(name).end()


def take_turns(
    processes: dict[str, Process],
    skipped: dict[str, str],
    turns: int,
    between: Callable[[], float],
) -> tuple[dict[str, list[dict[str, Any]]], list[float]]:
    """Return what each variant measured in each turn, and what was measured between the turns.

    The turns of the warm-up come first. Every other turn goes through the variants backwards.

    Args:
        processes: the variants' workers; those that fail are taken out.
        skipped: gets the reason of each that fails.
        turns: how many are timed.
        between: measured before each turn.
    """
    steps: dict[str, list[dict[str, Any]]] = {name: [] for name in processes}
    rates = []
    for turn in range(WARM_UP + turns):
        rates.append(between())
        for name in list(processes)[:: -1 if turn % 2 else 1]:
            with dropped_on_failure(name, processes, skipped):
                steps[name].append(processes[name].ask("step"))
    return {name: steps[name] for name in processes}, rates
