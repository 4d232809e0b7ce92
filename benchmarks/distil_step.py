"""One distillation step: ours against a textbook, a plain Trainer, and code that others wrote.

    python -m benchmarks.distil_step --size mini
    python -m benchmarks.distil_step --size base --peers --turns 3 --json base.json
    python -m benchmarks.distil_step --size mini --peers --ragged --keep_memory
    python -m benchmarks.distil_step --peers --check

A step is the forward pass of teacher and student, losses, backward, clipping and AdamW, in float32
on a CPU, under bf16 autocast on a GPU. Each variant is a process of its own, with the same models,
sequences, masks and number of threads. They take turns, and one works at a time, so that a busy
machine slows all of them alike: times are compared within a turn, for each real token.

`--ragged` gives sentences of lognormal lengths. Then each has its own batches: the textbook's are
grouped by length, ours formed as `tokens_per_batch` does, all others drawn at random.
`--restrict` leaves out those that can't restrict soft targets to the masked tokens.

"Of the rate" is the rate of the products that the result needs (its soft targets at all real
tokens, or at the masked ones), as a share of the rate of a 2048 x 2048 x 2048 product measured
between the turns. Memory is the peak above what was resident before the first step, with gradients
and optimizer state. `--check` compares losses and gradients instead, on the same weights and batch.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from angels_share.files import write_json
from angels_share.hardware import cores, limit_spinning, processor
from benchmarks.peers import VARIANTS, Variant
from benchmarks.turns import (
    KEPT_MEMORY,
    WARM_UP,
    Process,
    VariantFailedError,
    dropped_on_failure,
    started,
    take_turns,
)

TOLERANCE = 1e-4
_BY_NAME = {variant.name: variant for variant in VARIANTS}
_CASES = {
    "full": {"ragged": False, "restrict": False},
    "ragged": {"ragged": True, "restrict": False},
    "restricted": {"ragged": True, "restrict": True},
}


class Spread(NamedTuple):
    """A median, and the lowest and highest of the numbers that it is of."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Return the spread of numbers."""
        return cls(statistics.median(numbers), min(numbers), max(numbers))


def chosen_variants(options: argparse.Namespace) -> tuple[list[Variant], dict[str, str]]:
    """Return the variants to run, and why others are not."""
    wanted = [
        each
        for each in VARIANTS
        if (options.peers or each.package is None) and (options.compile or each.name != "compiled")
    ]
    reason = "it can't restrict soft targets to the masked tokens"
    refused = {each.name: reason for each in wanted if options.restrict and not each.restricts}
    return [each for each in wanted if each.name not in refused], refused


def summarize(
    steps: dict[str, list[dict[str, Any]]], rates: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Return each variant's times and memory, and its times over ours, turn by turn.

    The steps of the warm-up count for memory only.
    """
    rate = statistics.median(rates)
    per_token = {
        name: [each["seconds"] / each["tokens"] for each in done[WARM_UP:]]
        for name, done in steps.items()
    }
    summary = {}
    for name, done in steps.items():
        ratios = [
            theirs / ours for theirs, ours in zip(per_token[name], per_token["ours"], strict=True)
        ]
        shares = [each["operations"] / each["seconds"] / rate for each in done[WARM_UP:]]
        summary[name] = {
            "over_ours": Spread.of(ratios)._asdict(),
            "seconds_per_token": Spread.of(per_token[name])._asdict(),
            "share_of_rate": statistics.median(shares),
            "peak_bytes": max(each["peak"] for each in done),
            "steps": done,
        }
    return summary


def table(
    summary: dict[str, dict[str, Any]],
    versions: dict[str, dict[str, str]],
    skipped: dict[str, str],
    *,
    ragged: bool,
) -> str:
    """Return the results as a table in markdown, and a line for each variant that is skipped."""
    lines = [
        "| variant | version | terms | time over ours | µs per token | peak MB | of the rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in summary.items():
        variant, over = _BY_NAME[name], Spread(**found["over_ours"])
        version = versions[name].get(variant.distribution or "", "")
        padding = ", padding too" if ragged and variant.learns_padding else ""
        terms = " + ".join(variant.terms) + padding
        ratio = f"{over.median:.2f} ({over.lowest:.2f} to {over.highest:.2f})"
        micro, peak = found["seconds_per_token"]["median"] * 1e6, found["peak_bytes"] / 1e6
        lines.append(
            f"| {variant.title} | {version} | {terms} | {'1' if name == 'ours' else ratio} "
            f"| {micro:,.0f} | {peak:,.0f} | {found['share_of_rate']:.0%} |"
        )
    lines += [f"skipped: {_BY_NAME[name].title}: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)


def describe(options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Return the machine and the settings, as far as they decide the result."""
    flags = {key: value for key, value in vars(options).items() if key not in ("json", "check")}
    names = (*KEPT_MEMORY, "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "LD_PRELOAD")
    settings = {**os.environ, **_allocator(options)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "system": f"{platform.system()} {platform.release()}, {'-'.join(platform.libc_ver())}",
        "cores": cores(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "environment": {name: settings[name] for name in names if name in settings},
        "flags": flags,
    }


def measure(options: argparse.Namespace) -> None:
    """Let the variants take turns; print the table, write the JSON."""
    from benchmarks import machine  # torch, which reads its environment when it is imported

    variants, refused = chosen_variants(options)
    flags = [name for name in ("ragged", "restrict") if getattr(options, name)]
    arguments = [options.size, options.device, *flags]
    with started(variants, arguments, _allocator(options)) as (processes, skipped, answers):
        threads = {answer["threads"] for answer in answers.values()}
        if len(threads) > 1:
            sys.exit(f"variants would run with {sorted(threads)} threads: set OMP_NUM_THREADS")
        about = describe(options, threads.pop())
        steps, rates = take_turns(
            processes, skipped, options.turns, lambda: machine.product_rate(options.device)
        )
    about |= {"load_after": os.getloadavg()[0], "product_rate": statistics.median(rates)}
    versions = {name: answer["versions"] for name, answer in answers.items()}
    skipped = {**refused, **skipped}
    summary = summarize(steps, rates)
    print(
        f"{options.size}, {' '.join(flags) or 'full'}, {options.device}, memory "
        f"{'kept' if options.keep_memory else 'as it is'}, {options.turns} turns; "
        f"{about['processor']}, {about['threads']} threads, load {about['load_before']:.1f} to "
        f"{about['load_after']:.1f}, {about['product_rate'] / 1e9:.0f} GFLOP/s; "
        f"torch {versions['ours']['torch']}, transformers {versions['ours']['transformers']}; "
        + " ".join(f"{name}={value}" for name, value in about["environment"].items())
    )
    print(table(summary, versions, skipped, ragged=options.ragged), flush=True)
    if options.json is not None:
        content = {"about": about, "versions": versions, "skipped": skipped, "variants": summary}
        write_json(options.json, content)


def check(options: argparse.Namespace) -> bool:
    """Print whether each variant computes what ours does; return whether all of them do."""
    variants, _ = chosen_variants(options)
    print("| variant | batch | terms | loss | gradient norm | largest difference | |")
    print("|---|---|---|---|---|---|---|")
    agree = True
    with started(variants, ["tiny", "cpu"], {}) as (processes, skipped, _):
        for name in [each for each in processes if each != "ours"]:
            for case in _CASES:
                with dropped_on_failure(name, processes, skipped):
                    agree &= _compare(processes, _BY_NAME[name], case)
                if name in skipped:
                    break
    for name, reason in skipped.items():
        print(f"skipped: {_BY_NAME[name].title}: {reason}")
    return agree


def _compare(processes: dict[str, Process], variant: Variant, case: str) -> bool:
    """Print a variant's row of the check; return whether it agrees, or can't be compared."""
    settings, terms = _CASES[case], " + ".join(variant.terms)
    reason = None
    if settings["restrict"] and not variant.restricts:
        reason = "soft targets can't be restricted"
    elif settings["ragged"] and variant.learns_padding:
        reason = "soft targets of padding count, too"
    if reason:
        print(f"| {variant.title} | {case} | {terms} | | | | not compared: {reason} |")
        return True
    found, ours = (
        processes[name].ask("compare", terms=variant.terms, **settings)
        for name in (variant.name, "ours")
    )
    # `not <=`, so that NaN is a difference
    off = {key: abs(found[key] - value) / abs(value) for key, value in ours.items()}
    wrong = [key for key, difference in off.items() if not difference <= TOLERANCE]
    largest = max(off["loss"], off["norm"])
    verdict = f"DIFFERENT {', '.join(wrong)}" if wrong else "ok"
    print(
        f"| {variant.title} | {case} | {terms} | {found['loss']:.6f} | {found['norm']:.6f} "
        f"| {largest:.1e} | {verdict} |"
    )
    return not wrong


def _allocator(options: argparse.Namespace) -> dict[str, str]:
    return KEPT_MEMORY if options.keep_memory else {}


def _turns(text: str) -> int:
    if (turns := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least one turn")
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distil_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--size", choices=["tiny", "mini", "base"], default="mini", help="[mini]")
    parser.add_argument("--peers", action="store_true", help="also what others wrote")
    parser.add_argument(
        "--compile", action="store_true", help="also ours with both bodies compiled by torch"
    )
    parser.add_argument("--ragged", action="store_true", help="sentences of unequal lengths")
    parser.add_argument(
        "--restrict", action="store_true", help="soft targets at masked positions only"
    )
    parser.add_argument(
        "--keep_memory", action="store_true", help="the allocator keeps freed memory for reuse"
    )
    parser.add_argument("--turns", type=_turns, default=3, help="timed steps of each [3]")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="[cpu]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements, too")
    parser.add_argument(
        "--check", action="store_true", help="only compare losses and gradients, at a tiny size"
    )
    options = parser.parse_args()
    if options.size == "tiny" and options.device == "cuda":
        parser.error("--size tiny is for the CPU")
    limit_spinning()  # importing our package does so: the others get it, too
    try:
        if not options.check:
            measure(options)
        elif not check(options):
            sys.exit(1)
    except VariantFailedError as error:
        sys.exit(f"ours failed: {error}")


if __name__ == "__main__":
    main()
