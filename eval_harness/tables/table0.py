"""Table 0: language models before any fine-tuning, as `probe` measured them."""

from collections.abc import Iterator, Sequence

from eval_harness.intervals.differences import Difference, Scores
from eval_harness.results.measures import Measure
from eval_harness.results.probes import OF_PAIRS, OF_TEXT, ProbeResult
from eval_harness.rows.labels import one_line
from eval_harness.tables.cells import MODEL, title_of
from eval_harness.tables.probed import Probed
from eval_harness.tables.table import STAND_IN, Number, Table, Value

_N = "n"
_TRAINED = "†"
TOLD = "*"
"""The mark of a significant difference."""
LEVEL = 0.05
"""Of Holm's p-values: below it a difference is significant."""


def table0(probed: Probed) -> list[Table]:
    """Return Table 0, and the differences in it if there are several models; none if there is none.

    Args:
        probed: what the last `probe` compared.
    """
    if not probed.rows and not probed.invalid:
        return []
    columns = (MODEL, _N, *(title_of_measure(measure) for measure in probed.measures))
    cells = tuple(
        (
            row.label,
            row.count,
            *(_score(probed.scores[each.name].get(row.label), each) for each in probed.measures),
        )
        for row in probed.rows
    )
    not_counted = [f"Not counted: {file}." for file in probed.invalid]
    notes = tuple(map(one_line, [*_notes(probed), *not_counted]))
    tables = [Table("table0", "Table 0: before any fine-tuning", columns, cells, notes)]
    return [*tables, _differences(probed)] if probed.differences else tables


def title_of_measure(measure: Measure) -> str:
    """Return a measure's title with its direction, and a mark if distillation minimises it."""
    arrow = "↑" if measure.higher_is_better else "↓"
    return f"{measure.title} {arrow}{f' {_TRAINED}' if measure.trained else ''}"


def _score(scores: Scores | None, measure: Measure) -> Value:
    """Return the mean over seeds."""
    if scores is None:
        return None
    mean = float(scores.points.mean())
    seeds = zip(scores.seeds, scores.points, strict=True)
    more = (
        {"seeds": {str(seed): float(point) for seed, point in seeds}}
        if len(scores.points) > 1
        else {}
    )
    return Number(f"{_rounded(mean, measure.digits):.{measure.digits}f}", mean, more)


def _differences(probed: Probed) -> Table:
    columns = (MODEL, _N, *(title_of_measure(measure) for measure in probed.measures))
    cells = tuple(
        (row.label, row.count, *(_difference(probed, row.label, each) for each in probed.measures))
        for row in probed.rows
        if row.label != probed.reference
    )
    notes = (
        *_note_on_data(probed),
        f"Differences from {probed.reference}, ± half of the 95 % interval: over evaluation "
        "examples (bootstrap, paired), and where there are several pre-training seeds over these "
        "too (t, paired by seed; fewer than three are too few). A row of one model is taken as it "
        "is: its intervals are about that model, not about how it was made.",
        f"{TOLD}: significant: p below .05 after Holm's correction for all "
        f"{len(probed.adjusted)} differences of this table; an interval alone may exclude 0 "
        "without that.",
        *_note_on_trained(probed.measures),
    )
    title = f"Table 0: differences from {probed.reference}"
    return Table("table0-differences", one_line(title), columns, cells, tuple(map(one_line, notes)))


def _difference(probed: Probed, label: str, measure: Measure) -> Value:
    change = probed.differences.get((measure.name, label))
    if change is None:
        return None
    adjusted = probed.adjusted.get((measure.name, label))
    return Number(
        difference_text(change, measure.digits, told=adjusted is not None and adjusted < LEVEL),
        change.value,
        details_of(change, adjusted),
    )


def difference_text(change: Difference, digits: int, *, told: bool) -> str:
    """Return `+1.2 ±0.4*`, or the reason why there is no interval.

    Args:
        change: the difference.
        digits: decimals to print.
        told: whether it is significant.
    """
    value = f"{_rounded(change.value, digits):+.{digits}f}"
    if change.half is None:
        return f"{value} ({change.why})"
    return f"{value} ±{change.half:.{digits}f}{TOLD if told else ''}"


def _rounded(value: float, digits: int) -> float:
    return round(value, digits) + 0.0  # no -0.0


def details_of(change: Difference, adjusted: float | None) -> dict[str, object]:
    """Return a difference's fields for the JSON format: interval, p, and p adjusted by Holm."""
    if change.half is None:
        return {"why": change.why}
    interval = [change.value - change.half, change.value + change.half]
    return {"interval": interval, "p": change.p, "holm": adjusted}


def _note_on_trained(measures: Sequence[Measure]) -> Iterator[str]:
    if any(measure.trained for measure in measures):
        yield (
            f"{_TRAINED} KL and cosine are what distillation itself minimises (L_ce, L_cos): they "
            "show that a term does something, not that it is of use."
        )


def _note_on_data(probed: Probed) -> Iterator[str]:
    """Say first that the data of tasks stand in for others, where they declare it."""
    results = (result for row in probed.rows for each in row.results.values() for result in each)
    names = dict.fromkeys(str(name) for each in results if (name := each.facts.get("name")))
    if names:
        yield f"{STAND_IN}{', '.join(names)}."


def _notes(probed: Probed) -> Iterator[str]:
    yield from _note_on_data(probed)
    results = {probe: each[0] for row in probed.rows for probe, each in row.results.items() if each}
    names = {measure.name for measure in probed.measures}
    if "loss" in names and (text := results.get(OF_TEXT)):
        yield (
            f"Word loss: nats per hidden word of {_of(text, 'texts')}, the same "
            f"{100 * text.settings['hidden']:.0f} % of the words hidden from all; it is what L_mlm "
            "minimises, on new text."
        )
    if compared := [measure.title for measure in probed.measures if measure.of_teacher]:
        yield f"{', '.join(compared)}: with {_teacher(probed)}."
    if "perplexity" in names:
        yield "Perplexity: a token, so only models with one tokenizer can be compared."
    if pairs := results.get(OF_PAIRS):
        left_out = pairs.facts.get("left_out")
        more = f" ({left_out} that differ in more than a word are left out)" if left_out else ""
        yield (
            f"Pairs: % of {_of(pairs, 'pairs')}{more} of which the model finds the good sentence "
            "likelier; 50 is chance."
        )
    if tasks := [name for name in results if name not in (OF_TEXT, OF_PAIRS)]:
        sizes = dict.fromkeys(str(results[name].facts.get("train")) for name in tasks)
        yield (
            f"{', '.join(map(title_of, tasks))}: the task's score of a linear map of frozen "
            f"features, the mean of the last states, fitted to {' and '.join(sizes)} examples."
        )
    yield from _note_on_trained(probed.measures)
    if any(row.count > 1 for row in probed.rows):
        yield "n: models that differ only in the seed of their pre-training; means over them."


def _teacher(probed: Probed) -> str | None:
    return next((row.label for row in probed.rows if row.is_teacher), None)


def _of(result: ProbeResult, noun: str) -> str:
    """Return `400 texts of held-out.txt`."""
    files = ", ".join(map(str, result.facts.get("files", ())))
    return f"{result.facts.get('count')} {noun}{f' of {files}' if files else ''}"
