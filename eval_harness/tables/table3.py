"""Table 3: size and speed; the paper's rows, then every session of ours. A pure function."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval_harness.data.stsb_lengths import COUNTS
from eval_harness.results.speed import Session, Setup, Speeds, Timed, Timing, ratio
from eval_harness.tables.cells import published_name
from eval_harness.tables.table import Number, Table, Value, filled, table_of

_RATIO = ("BERT-base", "DistilBERT")
"""Of the paper's rows: whose time is divided by whose."""
_BUSY = 0.5
"""Processes that wanted a core, from which on times are not this program's alone."""
_WAITED = 0.05
"""The share of their time that threads waited for a core, from which on it is told."""
_WHOLE = sum(COUNTS)

_SIZES = ("Parameters (M)", "With head (M)", "MB")
_TIMES = ("Threads", "Seconds", "ms a pair", "p50", "p90", "p99", "Ratio")
_PEAK = "Peak MB"

_Row = dict[str, Value]


def table3(paper: Mapping[str, Any], measured: Speeds) -> Table:
    """The paper's rows and ours, each session a group of its own: only within it can one compare.

    Args:
        paper: the published numbers.
        measured: our sessions, and the files that are none.
    """
    several = len(measured.sessions) > 1
    rows = list(_published(paper))
    for number, session in enumerate(measured.sessions, 1):
        rows += _rows_of(session, f" ({number})" if several else "")
    names = ("Model", *_SIZES, *_TIMES, *_throughputs(measured.sessions), _PEAK)
    columns, cells = filled(names, rows)
    said = list(_notes(paper, measured.sessions))
    said += [f"Not counted: {each}." for each in measured.invalid]
    return table_of(paper, "table3", "Table 3: size and speed", columns, cells, notes=said)


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
    """A row for each number of threads and each model: those that are compared stand together."""
    for threads in session.setup.threads:
        for model in session.models:
            name = {"Model": f"{model.name}{suffix}"}
            yield {**name, **_sizes(model), **_times(session, model, threads)}


def _sizes(model: Timed) -> _Row:
    return {
        "Parameters (M)": _of_a_million(model.parameters),
        "With head (M)": _of_a_million(model.with_head),
        "MB": _of_a_million(model.file_bytes),
        _PEAK: _of_a_million(model.peak_bytes),
    }


def _of_a_million(count: int | None) -> Value:
    """One decimal, but three for a model of a demo, which would be 0.0."""
    if count is None:
        return None
    return Number(f"{count / 1e6:.{1 if count >= 1e6 else 3}f}", count / 1e6)


def _times(session: Session, model: Timed, threads: int) -> _Row:
    pairs, one = session.setup.pairs, model.timing(threads)
    first = session.models[0]
    batches = [each for each in model.timings if each.threads == threads and each.batch_size > 1]
    return {
        "Threads": threads,
        "Seconds": _spread(one.seconds, one.passes) if _is_the_papers(session.setup) else None,
        "ms a pair": _spread(*_milliseconds(one, pairs)),
        "p50": _milli(one.p50),
        "p90": _milli(one.p90),
        "p99": _milli(one.p99),
        "Ratio": _ONE if model is first else _ratio(first.timing(threads), one),
        **{_throughput(each.batch_size): _rate(pairs / each.seconds) for each in batches},
    }


def _is_the_papers(setup: Setup) -> bool:
    """Whether a pass has as many pairs as the paper's: other dev sets can be whole too."""
    return setup.full and setup.pairs == _WHOLE


def _milliseconds(one: Timing, pairs: int) -> tuple[float, list[float]]:
    """Of a pair on average: of the median pass, and of each."""
    return 1000 * one.seconds / pairs, [1000 * seconds / pairs for seconds in one.passes]


def _ratio(first: Timing, own: Timing) -> Number:
    found = ratio(first, own)
    limits = {"interval": [found.low, found.high]}
    return Number(_with_range(found.value, found.low, found.high, 2), found.value, limits)


def _spread(median: float, values: Sequence[float]) -> Number:
    low, high = min(values), max(values)
    text = _with_range(median, low, high, _digits(median))
    return Number(text, median, {"repeats": list(values)})


def _with_range(value: float, low: float, high: float, digits: int) -> str:
    """`34.1 (33.0 to 36.2)`."""
    around = "" if low == high else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{value:.{digits}f}{around}"


def _milli(value: float) -> Number:
    return Number(f"{value:.{_digits(value)}f}", value)


def _rate(value: float) -> Number:
    return Number(f"{value:.{0 if value >= 1000 else 1}f}", value)


def _digits(value: float) -> int:
    """Decimals of a time: two where it is a tiny model's."""
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
        "Ours, ms a pair: a pass at batch size 1 over the number of its pairs, without padding, "
        "tokenization not counted; median of the repeats (lowest to highest). p50, "
        "p90, p99: milliseconds of single pairs, over all repeats."
    )
    yield (
        "Ratio: the time of the first model over this one's, the same threads, the same session; "
        "medians (lowest to highest of the repeats, the models in turn). Measured, not aimed at "
        f"the paper's {seconds[0]}/{seconds[1]} of other machines; its threads and padding are "
        "unknown."
    )
    yield (
        "Parameters: of the body (embeddings, layers, the pooler where there is one), which the "
        "paper rounds to 110 and 66; MB: of the weights' files; Pairs/s: in batches padded by "
        "length; Peak MB: of the weights in memory and the most above them at batch size 1."
    )
    for number, session in enumerate(sessions, 1):
        which = f" ({number})" if len(sessions) > 1 else ""
        yield f"Measured{which}: {'; '.join(_circumstances(session))}."


def _circumstances(session: Session) -> Iterator[str]:
    machine, setup = session.machine, session.setup
    where = f"{machine.processor}, {machine.cores} cores, {machine.system}"
    yield where if machine.device == "cpu" else f"{machine.device} ({where})"
    versions = (f"{name} {session.libraries.get(name, '?')}" for name in ("torch", "transformers"))
    yield f"{setup.dtype}, {', '.join(versions)}"
    whole = " (the whole dev set)" if _is_the_papers(setup) else ""
    yield f"{setup.pairs} pairs{whole}: {_texts(setup)}"
    yield f"{setup.repeats} repeat{'s' if setup.repeats > 1 else ''}"
    if made := [model.name for model in session.models if model.random_weights]:
        yield f"random weights: {', '.join(made)}"
    if session.load >= _BUSY:
        yield f"the machine was busy when it began (load {session.load:.1f})"
    if session.waited is not None and session.waited >= _WAITED:
        yield f"others had the cores {100 * session.waited:.0f} % of the time"


def _texts(setup: Setup) -> str:
    if setup.source is None:
        return "synthetic ids of STS-B's lengths"
    return f"STS-B dev, {setup.source}, content {str(setup.content)[:8]}"
