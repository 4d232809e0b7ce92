"""A card's metadata: what the Hub searches and links by, from the same facts as the text."""

from collections.abc import Iterable, Sequence
from typing import Any

from angels_share.card.facts import CardData, CardFacts, CardResult, CardRow
from angels_share.card.text import plain

KEYS = (
    "language",
    "license",
    "library_name",
    "pipeline_tag",
    "base_model",
    "base_model_relation",
    "datasets",
    "metrics",
    "tags",
    "model-index",
)
"""The keys that a card of ours may have, in their order."""


def metadata_of(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata in the order of `KEYS`, as plain data; what is unknown is left out."""
    models = base_models_of(facts)
    found: dict[str, Any] = {
        "language": _one_or_several([plain(each) for each in facts.languages]),
        "license": facts.license,
        "library_name": "transformers",
        "pipeline_tag": facts.shape.pipeline,
        "base_model": _one_or_several(models),
        # The Hub knows adapter, merge, quantized and finetune; a student is none of these.
        "base_model_relation": "finetune" if models and facts.is_fine_tuned else None,
        "datasets": _datasets(facts),
        "metrics": _unique(each.metric for each in _results(facts) if each.metric),
        "tags": _tags(facts),
        "model-index": _model_index(facts),
    }
    return {key: found[key] for key in KEYS if found[key] not in (None, [])}


def base_models_of(facts: CardFacts) -> list[str]:
    """Return the Hub ids of the models that it derives from.

    Those of a student are its teachers; that of a fine-tuned model is what was fine-tuned, never
    its teachers in its place.
    """
    if facts.base_models:
        return list(facts.base_models)
    if facts.is_fine_tuned:
        tuning = facts.fine_tuning
        return [tuning.base_hub] if tuning is not None and tuning.base_hub else []
    return _unique(each.hub for each in _teachers(facts) if each.hub)


def _teachers(facts: CardFacts) -> Sequence[Any]:
    return facts.pretraining.teachers if facts.pretraining is not None else ()


def _results(facts: CardFacts) -> list[CardResult]:
    return [result for row in facts.measured.rows for result in row.results]


def _datasets(facts: CardFacts) -> list[str]:
    corpus = facts.pretraining.corpus if facts.pretraining is not None else None
    # What copies of a student were evaluated on didn't make it.
    of_tasks = [result.data.hub for result in _results(facts)] if facts.is_fine_tuned else []
    return _unique([*(corpus.hub if corpus is not None else ()), *filter(None, of_tasks)])


def _tags(facts: CardFacts) -> list[str]:
    tags = ["distillation"] if facts.is_distilled else []
    tags.append("angels-share")
    if facts.is_fine_tuned:
        evaluated = (result.task for result in _results(facts))
        tags += [plain(task) for task in (facts.shape.task, *evaluated) if task is not None]
    return _unique(tags)


def _model_index(facts: CardFacts) -> list[dict[str, Any]]:
    """Return the results in the form that the Hub draws and compares.

    `.eval_results/*.yaml`, which may seem the newer place, is not written: it takes registered
    benchmarks only, and of GLUE, SQuAD and IMDb none is one.
    """
    rows = facts.measured.rows
    entries: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for row in rows:
        for result in row.results:
            if result.median is None or result.metric is None:
                continue
            data = _dataset(result.data)
            key = (result.pipeline, data["type"], *map(data.get, ("config", "split", "revision")))
            entry = entries.setdefault(
                key, {"task": {"type": result.pipeline}, "dataset": data, "metrics": []}
            )
            entry["metrics"] += _metrics(facts, row, result, several=len(rows) > 1)
    name = facts.repo_id.rpartition("/")[2]
    return [{"name": name, "results": list(entries.values())}] if entries else []


def _dataset(data: CardData) -> dict[str, Any]:
    """Return the data set of an entry; other data than the Hub's get a type that is no Hub id."""
    if data.hub is None:
        kind = plain(data.elsewhere) or "unknown data"
        shown = {"type": f"not on the Hub: {kind}", "name": f"{plain(data.title)} ({kind})"}
        return {**shown, "split": plain(data.split)}
    found = {
        "type": data.hub,
        "name": plain(data.title),
        "config": data.config,
        "split": plain(data.split),
        "revision": data.revision,
    }
    return {key: value for key, value in found.items() if value is not None}


def _metrics(
    facts: CardFacts, row: CardRow, result: CardResult, *, several: bool
) -> list[dict[str, Any]]:
    """Return a result's median over seeds, and the score of these very weights if it is known.

    Args:
        facts: the facts that it belongs to.
        row: its row.
        result: the result, which has a median.
        several: whether there are other rows, so that its label must be told.
    """
    assert result.median is not None
    under = ["after fine-tuning"] if not facts.is_fine_tuned else []
    under += ["(D)"] if row.distilled else []
    under += [f"{row.transfer_texts:,} unlabelled texts"] if row.transfer_texts else []
    under += [f"at most {row.limit} examples per split"] if row.limit is not None else []
    under += [f"row: {plain(row.label)}"] if several else []
    count = plain(result.count)
    values = {f"median of {count.replace('/', ' of ')} seeds": result.median}
    if result.seeds == 1:
        values = {f"{count.replace('/', ' of ')} seed": result.median}
    if result.here is not None:
        seed = facts.fine_tuning.seed if facts.fine_tuning is not None else None
        values[f"these weights (seed {seed})" if seed is not None else "these weights"] = (
            result.here
        )
    metrics = []
    for what, percent in values.items():
        name = ", ".join([plain(result.title), what, *under])
        metric = {"type": result.metric, "value": _value(result, percent), "name": name}
        metrics.append({**metric, "args": dict(result.arguments)} if result.arguments else metric)
    return metrics


def _value(result: CardResult, percent: float) -> float:
    """Return a score in its metric's own unit, in which others state theirs.

    Exact match and F1 of questions are percentages there, everything else is at most 1.
    """
    share = percent if result.pipeline == "question-answering" else percent / 100
    return round(share, 10) + 0.0  # + 0.0: no -0.0


def _unique(values: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value is not None))


def _one_or_several(values: Sequence[str]) -> Any:
    return values[0] if len(values) == 1 else list(values)
