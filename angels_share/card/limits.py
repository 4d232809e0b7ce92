"""A card's limits: what the model is not for, and what nobody measured."""

from collections.abc import Iterator

from angels_share.card.facts import CardFacts
from angels_share.card.text import inline


def limits(facts: CardFacts) -> list[str]:
    """Return the section on limits."""
    return ["", "## Limits", "", *(f"- {each}" for each in _limits(facts))]


def _limits(facts: CardFacts) -> Iterator[str]:
    pretraining, tuning = facts.pretraining, facts.fine_tuning
    if tuning is not None and tuning.marks:
        yield f"**These weights are marked: {'; '.join(map(inline, tuning.marks))}.**"
    if pretraining is not None and pretraining.status == "interrupted":
        yield "**Its training was interrupted and is not finished.**"
    if pretraining is not None and pretraining.ablation not in (None, "none"):
        yield (
            f"A part of the method was left out on purpose ({inline(pretraining.ablation)}), to "
            "measure what that part is worth: a comparison, not the best student."
        )
    yield _language(facts)
    yield _biases(facts)
    yield _misuse(facts)
    yield from _one_run(facts)
    yield from _optimistic(facts)
    if missing := list(_not_measured(facts)):
        yield f"Not measured: {'; '.join(missing)}."


def _language(facts: CardFacts) -> str:
    languages = ", ".join(map(inline, facts.languages))
    known = f"Its language is that of its data ({languages})" if languages else ""
    unknown = "Which languages its data are in is not recorded"
    return f"{known or unknown}; on other languages and kinds of text it was not tried."


def _biases(facts: CardFacts) -> str:
    pretraining = facts.pretraining
    sources = ["its base model"] if facts.is_fine_tuned else []
    if facts.is_distilled:
        sources.append("its teacher")
    if pretraining is not None or not sources:
        sources.append("the text that it was trained on")
    return f"It inherits the biases and errors of {' and '.join(sources)}."


def _misuse(facts: CardFacts) -> str:
    match facts.shape.pipeline:
        case "fill-mask":
            use = "It is not made to tell facts: what it fills in is likely, not true"
        case "text-generation":
            use = "What it writes is likely, not true, and nothing filters it"
        case "question-answering":
            use = "It copies words of the context, right or wrong, and does not check them"
        case "text-classification":
            use = "Its probabilities were not calibrated"
        case _:
            use = "It was made for research"
    return f"{use}; don't let it decide anything about people."


def _one_run(facts: CardFacts) -> Iterator[str]:
    if facts.pretraining is not None and facts.pretraining.teachers:
        yield "Its distillation is one run: how much one with another seed would differ is unknown."


def _optimistic(facts: CardFacts) -> Iterator[str]:
    """Yield the reasons for which scores may promise too much."""
    results = [result for row in facts.measured.rows for result in row.results]
    if any("stand-in" in result.data.elsewhere for result in results):
        yield "Scores on stand-in data say nothing about the task that these stand in for."
    if any(result.data.split.startswith("validation") for result in results):
        yield (
            "The scores are on validation data; whoever chooses settings or seeds by them makes "
            "them look better than they are."
        )
    best = (
        each.here is not None and each.here == each.highest and each.here > (each.median or 0)
        for each in results
    )
    if any(result.seeds > 1 and is_best for result, is_best in zip(results, best, strict=True)):
        yield (
            "These weights are those of the best seed on the data that they were evaluated on, so "
            "their score flatters them: expect the median."
        )
    if any(result.seeds == 1 for result in results):
        yield "Where n is 1 nothing is known about the spread over seeds."


def _not_measured(facts: CardFacts) -> Iterator[str]:
    rows = [row for row in facts.measured.rows if row.results]
    if not rows:
        yield "the score on any task"
    if facts.is_distilled and not any(row.retained for row in rows):
        yield "the share of its teacher's score that it retained"
    if not facts.measured.speed:
        yield "speed and memory"
    yield "bias"
    yield "robustness"
    yield "energy used"
