"""Runs the parts of the measurement: each in a process and a time of its own."""

import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from angels_share.files import replacing, write_json
from benchmarks import machine

LEAST_SECONDS = 5


class Setup(NamedTuple):
    """Where to measure, and whether everything is tiny."""

    device: str
    small: bool


class Figure(NamedTuple):
    """One number, or the reason why there is none."""

    what: str
    value: float | None
    unit: str = ""
    note: str = ""


class Part(NamedTuple):
    """A part that can fail without the others."""

    name: str
    seconds: float
    """After which it is stopped; what it had found by then is kept."""
    measure: Callable[[Setup], Iterator[Figure]]


def measure(chosen: Sequence[Part], setup: Setup, folder: Path, seconds: float) -> int:
    """Run parts one after the other and print a table; return how many of them didn't end well.

    Args:
        chosen: the parts.
        setup: where to measure.
        folder: what each part found is written here when it has ended, the table at the end.
        seconds: all parts together take no longer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    found: dict[str, list[Figure]] = {}
    problems = 0
    for part in [Part("machine", 30, _machine), *chosen]:
        left = min(part.seconds, end - time.monotonic())
        figures, problem = _in_its_own_process(part, setup, folder / f"{part.name}.json", left)
        problems += problem is not None
        found[part.name] = figures
        for figure in figures:
            print(f"{part.name}: {_shown(figure)}", flush=True)
    lines = ["| part | what | value | note |", "|---|---|---|---|"]
    for name, figures in found.items():
        lines += [f"| {name} | {each.what} | {_number(each)} | {each.note} |" for each in figures]
    with replacing(folder / "table.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{folder / 'table.md'}: {len(found) - problems} of {len(found)} parts ended well")
    return min(problems, 1)


def _in_its_own_process(
    part: Part, setup: Setup, path: Path, seconds: float
) -> tuple[list[Figure], str | None]:
    """Return what a part found, and why it did not end well."""
    problem = None
    path.unlink(missing_ok=True)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    figures: list[Figure] = []
    if seconds < LEAST_SECONDS:
        problem = "not begun: no time was left"
    else:
        process = multiprocessing.get_context("fork").Process(
            target=_send, args=(part, setup, sender)
        )
        end = time.monotonic() + seconds
        process.start()
        sender.close()
        died = False
        while receiver.poll(max(end - time.monotonic(), 0)):
            try:
                said = receiver.recv()
            except EOFError:
                died = True
                break
            if not isinstance(said, Figure):
                problem = said
                break
            figures.append(said)
        else:
            problem = f"stopped after {seconds:.0f} s"
            process.kill()
        process.join()
        if died:
            problem = f"its process ended with status {process.exitcode}"
    if problem is not None:
        figures.append(Figure(part.name, None, note=problem))
    write_json(path, [figure._asdict() for figure in figures])
    return figures, problem


def _send(part: Part, setup: Setup, sender: multiprocessing.connection.Connection) -> None:
    """Send a part's figures, then None or what went wrong."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        for figure in part.measure(setup):
            sender.send(figure)
        sender.send(None)
    except Exception as error:  # noqa: BLE001  (a GPU's time is rare: the others still count)
        line = " ".join(str(error).split())[:300]
        sender.send(f"{type(error).__name__}: {line}")


def _machine(setup: Setup) -> Iterator[Figure]:
    """Say what is measured on."""
    what = f"{machine.describe(setup.device)}, transformers {transformers.__version__}"
    yield Figure("machine", None, note=what)
    yield rate_of_products(setup)


def rate_of_products(setup: Setup) -> Figure:
    """Return the rate of large products, bf16 on a GPU."""
    side = 128 if setup.small else 8192
    rate = machine.product_rate(setup.device, side=side)
    return Figure(f"product of {side}³", rate / 1e12, "TFLOP/s")


def peak_gigabytes(setup: Setup) -> Figure:
    """Return the peak of the memory that torch handed out since its statistics were reset."""
    if setup.device != "cuda":
        return Figure("peak memory", None, "GB", "measured on a GPU only")
    return Figure("peak memory", torch.cuda.max_memory_allocated() / 1e9, "GB")


def forget_peak(setup: Setup) -> None:
    """Let the peak of memory begin anew."""
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _number(figure: Figure) -> str:
    return "" if figure.value is None else f"{figure.value:,.4g} {figure.unit}".strip()


def _shown(figure: Figure) -> str:
    note = f"({figure.note})" if figure.note else ""
    return " ".join(each for each in (f"{figure.what}:", _number(figure), note) if each)
