"""A card's results and timings, with everything that a score depends on."""

from collections.abc import Iterator

from angels_share.card.facts import CardData, CardFacts, CardRetained, CardRow
from angels_share.card.text import inline, link, note, table


def results(facts: CardFacts) -> list[str]:
    """Return the section on results; nothing where nothing was measured."""
    rows = [row for row in facts.measured.rows if row.results]
    if not rows:
        return []
    lines = ["", "## Results", "", _explained(facts)]
    for row in rows:
        lines += ["", f"### {inline(row.label)}"] if len(rows) > 1 else []
        lines += ["", *_scores(row), "", *_about(row)]
    return lines


def _explained(facts: CardFacts) -> str:
    said = "In percent: the median over n seeds, in brackets the lowest and the highest of them."
    tuning = facts.fine_tuning
    if not facts.is_fine_tuned:
        return (
            f"{said} For each task and seed a copy of the model was fine-tuned with a new head; "
            "those copies are not published here."
        )
    if tuning is not None and tuning.seed is not None:
        return f"{said} The weights published here are those of seed {tuning.seed}."
    return f"{said} Which of these seeds the weights published here are from is not recorded."


def _scores(row: CardRow) -> list[str]:
    has_here = any(result.here is not None for result in row.results)
    columns = ["Task", "Metric", "n", "Median", *(["These weights"] if has_here else [])]
    cells = [
        [
            _task(result.data),
            *map(inline, (result.title, result.count, result.text)),
            *([inline(result.here_text)] if has_here else []),
        ]
        for result in row.results
    ]
    return table(columns, cells)


def _task(data: CardData) -> str:
    elsewhere = f" ({inline(data.elsewhere)})" if data.elsewhere else ""
    split = "" if data.split == "validation" else f", {inline(data.split)}"
    return f"{inline(data.title)}{split}{elsewhere}"


def _about(row: CardRow) -> Iterator[str]:
    if row.distilled:
        yield (
            "- (D): a fine-tuned teacher's outputs were learned beside the labels, "
            "a second step of distillation."
        )
    if row.transfer_texts:
        yield (
            f"- A transfer set: on up to {row.transfer_texts:,} texts without labels the teacher's "
            "outputs alone were learned."
        )
    if row.limit is not None:
        yield (
            f"- Few examples: at most {row.limit:,} of each split were trained on and evaluated "
            "(`--limit`), so these scores are not comparable with any other."
        )
    if row.mean:
        over = ", ".join(map(inline, row.mean_of))
        yield f"- Mean of the medians over {over}: {inline(row.mean)}."
    if row.retained is not None:
        yield from _retained(row.retained)
    elif row.why_not_retained:
        yield f"- Share retained of the teacher's score: unknown, {note(row.why_not_retained)}."
    yield f"- Data: {'; '.join(_data(row))}."
    yield f"- Made with {'; '.join(_made_with(row))}."
    yield from (f"- {note(text)}" for text in row.notes)


def _retained(retained: CardRetained) -> Iterator[str]:
    tasks = retained.tasks
    over = "the means of the medians over" if len(tasks) > 1 else "the medians on"
    yield (
        f"- **Share retained: {inline(retained.text)} %** of its teacher's score, by {over} "
        f"{', '.join(map(inline, tasks))}."
    )
    if retained.why_no_interval:
        yield f"- That share has no interval: {note(retained.why_no_interval)}."
    else:
        yield (
            "- In brackets a 95 % interval, from resampling the evaluation examples "
            f"{retained.resamples:,} times, the same ones for both; it does not cover variation "
            "over seeds."
        )
    where = f" ({link(retained.hub, retained.revision)})" if retained.hub else ""
    scores = ", ".join(f"{inline(task)} {inline(text)}" for task, text in tasks.items())
    yield (
        f"- Its teacher {inline(retained.teacher)}{where}, fine-tuned and evaluated alike "
        f"(lowest to highest; seeds of those asked for): {scores}."
    )
    if retained.single:
        where = ", ".join(map(inline, retained.single))
        yield f"- The teacher has a single seed on {where}: its own spread is unknown there."


def _data(row: CardRow) -> Iterator[str]:
    """Yield each data set with what was evaluated of it, once for all its metrics."""
    parts: dict[str, dict[str, None]] = {}
    for result in row.results:
        data = result.data
        words = [inline(word) for word in (data.config, data.split) if word is not None]
        if data.examples is not None:
            words.append(f"({data.examples:,} examples)")
        if data.hub is not None:
            source = link(data.hub, data.revision, kind="datasets/")
        else:
            source = f"{inline(data.title)}, {inline(data.elsewhere) or 'of unknown origin'}"
            source += f" (content {inline(data.content)})" if data.content else ""
        parts.setdefault(source, {})[" ".join(words)] = None
    for source, splits in parts.items():
        yield f"{source}: {', '.join(splits)}"


def _made_with(row: CardRow) -> Iterator[str]:
    yield f"angels-share {' and '.join(map(inline, row.code)) or 'of an unknown version'}"
    if row.libraries:
        yield ", ".join(f"{inline(name)} {inline(v)}" for name, v in row.libraries.items())
    if row.machines:
        yield " and ".join(map(inline, row.machines))


def speed(facts: CardFacts) -> list[str]:
    """Return the section on timings, a table per session; nothing where nothing was timed."""
    if not facts.measured.speed:
        return []
    lines = [
        "",
        "## Speed",
        "",
        "ms a pair: one pair of texts at a time, tokenization not included; the median of the "
        "repeats, in brackets the lowest and the highest. Ratio: the time of the first model "
        "divided by this one's, timed in turns on one machine.",
    ]
    if facts.is_fine_tuned:
        lines[-1] += " It was timed before it was fine-tuned, which changes no size."
    for timed in facts.measured.speed:
        rows = [[inline(cell) for cell in row] for row in timed.rows]
        lines += ["", *table([inline(name) for name in timed.columns], rows), ""]
        lines += [f"- {note(text)}" for text in timed.notes]
    return lines
