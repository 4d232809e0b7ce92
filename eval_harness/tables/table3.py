"""Table 3: size and speed; the paper's rows, then every session of ours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval_harness.data.stsb_lengths import COUNTS
from eval_harness.results.speed import Session, Setup, Speeds, Timed, Timing, ratio
from eval_harness.tables.cells import published_name
from eval_harness.tables.table import Number, Table, Value, drop_empty_columns, make_table

_RATIO = ("BERT-base", "DistilBERT")
"""The paper's rows whose times form its ratio: the first divided by the second."""
_BUSY = 0.5
"""The load from which on a note says that the machine was busy."""
_WAITED = 0.05
"""The share of time spent waiting for a core from which on a note says so."""
_PAIRS_OF_THE_PAPER = sum(COUNTS)

_SIZES = ("Parameters (M)", "With head (M)", "MB on disk", "Saved as")
_TIMES = ("Threads", "Seconds", "ms a pair", "p50", "p90", "p99", "Ratio")
_PEAK = "Peak MB"

_Row = dict[str, Value]


def table3(paper: Mapping[str, Any], speeds: Speeds) -> Table:
    """Make Table 3: the paper's rows, then ours by session, since times compare only within one.

    Args:
        paper: the published numbers.
        speeds: our sessions, and the files that don't count.
    """
    several = len(speeds.sessions) > 1
    rows = list(_published(paper))
    for number, session in enumerate(speeds.sessions, 1):
        rows += _rows_of(session, f" ({number})" if several else "")
    names = ("Model", *_SIZES, *_TIMES, *_throughputs(speeds.sessions), _PEAK)
    columns, cells = drop_empty_columns(names, rows)
    notes = list(_notes(paper, speeds.sessions))
    notes += [f"Not counted: {file}." for file in speeds.invalid]
    return make_table(paper, "table3", "Table 3: size and speed", columns, cells, notes=notes)


def _published(paper: Mapping[str, Any]) -> Iterator[_Row]:
    value = paper["table3"]["ratio_bert_over_distilbert"]
    ratios = {_RATIO[0]: _ONE, _RATIO[1]: Number(f"{value:.2f}", value)}
    for name, row in paper["table3"]["rows"].items():
        yield {
            "Model": published_name(name),
            "Parameters (M)": row["parameters_millions"],
            "Seconds": row["seconds"],
            "Ratio": ratios.get(name),
        }


_ONE = Number("1", 1.0)


def _rows_of(session: Session, suffix: str) -> Iterator[_Row]:
    """Yield a row per number of threads and model: comparable rows are neighbours."""
    for threads in session.setup.threads:
        for model in session.models:
            name = {"Model": f"{model.name}{suffix}"}
            yield {**name, **_sizes(model), **_times(session, model, threads)}


def _sizes(model: Timed) -> _Row:
    return {
        "Parameters (M)": _in_millions(model.parameters),
        "With head (M)": _in_millions(model.with_head),
        "MB on disk": _in_millions(model.file_bytes),
        "Saved as": model.file_dtype,
        _PEAK: _in_millions(model.peak_bytes),
    }


def _in_millions(count: int | None) -> Value:
    """Return a count in millions: one decimal, or three for a tiny model, which would be 0.0."""
    if count is None:
        return None
    return Number(f"{count / 1e6:.{1 if count >= 1e6 else 3}f}", count / 1e6)


def _times(session: Session, model: Timed, threads: int) -> _Row:
    pairs, single = session.setup.pairs, model.timing(threads)
    seconds = None
    if _is_the_papers(session.setup):
        seconds = _spread(single.seconds, single.passes)
    ratio_to_first = _ONE
    if model is not session.models[0]:
        ratio_to_first = _ratio(session.models[0].timing(threads), single)
    milliseconds = [1000 * passed / pairs for passed in single.passes]
    batches = [
        timing for timing in model.timings if timing.threads == threads and timing.batch_size > 1
    ]
    return {
        "Threads": threads,
        "Seconds": seconds,
        "ms a pair": _spread(1000 * single.seconds / pairs, milliseconds),
        "p50": _milliseconds(single.p50),
        "p90": _milliseconds(single.p90),
        "p99": _milliseconds(single.p99),
        "Ratio": ratio_to_first,
        **{_throughput(timing.batch_size): _rate(pairs / timing.seconds) for timing in batches},
    }


def _is_the_papers(setup: Setup) -> bool:
    """Return whether a pass has as many pairs as the paper's: a smaller dev set is full, too."""
    return setup.full and setup.pairs == _PAIRS_OF_THE_PAPER


def _ratio(first: Timing, own: Timing) -> Number:
    found = ratio(first, own)
    limits = {"interval": [found.low, found.high]}
    return Number(_with_range(found.value, found.low, found.high, 2), found.value, limits)


def _spread(median: float, values: Sequence[float]) -> Number:
    low, high = min(values), max(values)
    text = _with_range(median, low, high, _digits(median))
    return Number(text, median, {"repeats": list(values)})


def _with_range(value: float, low: float, high: float, digits: int) -> str:
    """Return `34.1 (33.0 to 36.2)`, or the bare value where both ends are equal."""
    spread = "" if low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{spread}"


def _milliseconds(value: float) -> Number:
    return Number(f"{value:.{_digits(value)}f}", value)


def _rate(value: float) -> Number:
    return Number(f"{value:.{0 if value >= 1000 else 1}f}", value)


def _digits(value: float) -> int:
    """Return the decimals of a time: two for a tiny model's."""
    return 1 if value >= 10 else 2


def _throughputs(sessions: Sequence[Session]) -> list[str]:
    sizes = {size for session in sessions for size in session.setup.batch_sizes if size > 1}
    return [_throughput(size) for size in sorted(sizes)]


def _throughput(batch_size: int) -> str:
    return f"Pairs/s at {batch_size}"


def _notes(paper: Mapping[str, Any], sessions: Sequence[Session]) -> Iterator[str]:
    if not sessions:
        return
    seconds = [paper["table3"]["rows"][name]["seconds"] for name in _RATIO]
    yield (
        "Ours, ms a pair: the time of a pass at batch size 1, divided by its number of pairs; no "
        "padding, tokenization not included; median of the repeats (lowest to highest). p50, p90, "
        "p99: milliseconds of single pairs, over all repeats."
    )
    yield (
        "Ratio: the time of the session's first model divided by this one's, with the same "
        "threads; of the medians (lowest to highest of the repeats, in which the models take "
        f"turns). The paper's {seconds[0]}/{seconds[1]} is from another machine; its threads and "
        "padding are unknown."
    )
    yield (
        "Parameters: of the body (embeddings, layers, pooler if there is one), which the paper "
        "rounds to 110 and 66; MB on disk: of the weight files, or of the ONNX file; Saved as: the "
        "type of the numbers in them (a file of float16 is half as large); Pairs/s: in batches of "
        "pairs of similar length; Peak MB: the weights in memory plus the most used beyond them at "
        "batch size 1."
    )
    for number, session in enumerate(sessions, 1):
        which = f" ({number})" if len(sessions) > 1 else ""
        yield f"Measured{which}: {'; '.join(_circumstances(session))}."


def _circumstances(session: Session) -> Iterator[str]:
    machine, setup = session.machine, session.setup
    where = f"{machine.processor}, {machine.cores} cores, {machine.system}"
    yield where if machine.device == "cpu" else f"{machine.device} ({where})"
    libraries = ["torch", "transformers"]
    if any(model.backend != "torch" for model in session.models):
        yield _for_bytes(session.processor_flags)
        libraries.append("onnxruntime")
    versions = (f"{name} {session.libraries.get(name, '?')}" for name in libraries)
    yield f"{setup.dtype}, {', '.join(versions)}"
    whole = " (the whole dev set)" if _is_the_papers(setup) else ""
    yield f"{setup.pairs} pairs{whole}: {_texts(setup)}"
    yield f"{setup.repeats} repeat{'s' if setup.repeats > 1 else ''}"
    if names := [model.name for model in session.models if model.random_weights]:
        yield f"random weights: {', '.join(names)}"
    if session.load >= _BUSY:
        yield f"the machine was busy at the start (load {session.load:.1f})"
    if session.waited is not None and session.waited >= _WAITED:
        yield f"threads waited for a core {100 * session.waited:.0f} % of the time"


def _for_bytes(flags: Sequence[str]) -> str:
    """Return what of the processor the speed of int8 depends on."""
    known = f"processor flags {', '.join(flags)}" if flags else "processor flags unknown"
    return (
        known
        if any("vnni" in flag or "amx_int8" in flag for flag in flags)
        else (f"{known}: no VNNI, which makes int8 faster" if flags else known)
    )


def _texts(setup: Setup) -> str:
    if setup.source is None:
        return "synthetic ids of STS-B's lengths"
    return f"STS-B dev, {setup.source}, content {str(setup.content)[:8]}"
