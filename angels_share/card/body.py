"""A card's text: what a stranger must know about a model, in the order of their questions."""

from collections.abc import Iterator, Mapping, Sequence

from angels_share import __version__
from angels_share.card.facts import (
    CardCorpus,
    CardFacts,
    CardFineTuning,
    CardPretraining,
    CardStep,
    CardTeacher,
)
from angels_share.card.limits import limits
from angels_share.card.metadata import base_models_of
from angels_share.card.scores import results, speed
from angels_share.card.text import duration, inline, link, number, plain, size, table
from angels_share.card.usage import usage_of
from angels_share.student_record import EXPORTED, FINE_TUNED, PRUNED

_TERMS = {
    "alpha_ce": "`L_ce`: the teacher's soft targets",
    "alpha_mlm": "`L_mlm`: the masked tokens",
    "alpha_clm": "`L_clm`: the next token",
    "alpha_mse": "`L_mse`: the squared difference to the teacher's logits",
    "alpha_cos": "`L_cos`: the direction of the teacher's last hidden states",
    "alpha_rel": "`L_rel`: the relations among queries, among keys and among values",
    "alpha_task": "`L_task`: the task's labels",
}
"""What a weight of the loss belongs to."""

_MOST_SHOWN = 20

_DOES = {
    "fill-mask": "It fills in masked words, and is meant to be fine-tuned on a task.",
    "text-generation": "It continues a text, and is meant to be fine-tuned.",
    "question-answering": "It finds the answer to a question in a text.",
    "feature-extraction": "It returns hidden states, and is meant to be fine-tuned.",
}


def sections(facts: CardFacts, licence: str | None) -> list[str]:
    """Return the sections of a card, each a block of Markdown.

    Args:
        facts: what to state.
        licence: the licence in the card's metadata, which somebody may have changed; None if
            unknown.
    """
    parts = [
        ["", _summary(facts)],
        _overview(facts, licence),
        _usage(facts),
        results(facts),
        speed(facts),
        _training(facts),
        _lineage(facts.steps),
        limits(facts),
        _licence(facts, licence),
        _citation(facts),
    ]
    return ["\n".join(part) for part in parts if part]


def _summary(facts: CardFacts) -> str:
    """Return what the model is, in two or three sentences."""
    tuning, pretraining = facts.fine_tuning, facts.pretraining
    what = f"`{facts.shape.architecture}`" if facts.shape.architecture else "model"
    count = facts.shape.parameters
    said = f"A {what}" + (f" with {_in_millions(count)} parameters" if count else "")
    if facts.is_fine_tuned:
        title = inline(tuning.title if tuning is not None else facts.shape.task or "a task")
        said += f", fine-tuned for {title}"
        if tuning is not None and tuning.base:
            said += f" from {_linked(tuning.base, tuning.base_hub)}"
            if tuning.base_teacher:
                said += f", which was distilled from {inline(tuning.base_teacher)}"
        if tuning is not None and tuning.distillation:
            said += "; a fine-tuned teacher helped on the task itself, too (D)"
    elif pretraining is not None and pretraining.teachers:
        teachers = " and ".join(_linked(each.name, each.hub) for each in pretraining.teachers)
        said += f", distilled from {teachers} while it was pre-trained"
    elif pretraining is not None:
        said += ", pre-trained on text alone, without a teacher"
    does = _DOES.get(facts.shape.pipeline or "", "")
    return f"{said}. {does}".rstrip()


def _linked(name: str, hub: str | None, revision: str | None = None) -> str:
    return link(hub, revision) if hub else inline(name)


def _in_millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 100_000 else f"{count:,}"


def _overview(facts: CardFacts, licence: str | None) -> list[str]:
    shape = facts.shape
    parts = {
        "Layers": f"{shape.layers} of width {shape.width}" if shape.layers and shape.width else "",
        "Vocabulary": f"{shape.vocabulary:,} tokens" if shape.vocabulary else "",
        "Longest input": f"{shape.max_tokens:,} tokens" if shape.max_tokens else "",
        "Size": _size(facts),
        "Classes": ", ".join(map(inline, shape.labels)) if not shape.is_regression else "",
        "Language": ", ".join(map(inline, facts.languages)) or "not recorded",
        "Licence": inline(licence) if licence else "unknown, see below",
    }
    return ["", *table(("", ""), [(name, text) for name, text in parts.items() if text])]


def _size(facts: CardFacts) -> str:
    shape = facts.shape
    if not shape.parameters or not shape.bytes:
        return ""
    types = " and ".join(shape.dtypes)
    return f"{shape.parameters:,} parameters, {size(shape.bytes)} as {types}"


def _usage(facts: CardFacts) -> list[str]:
    code, about = usage_of(facts)
    if not code:
        return []
    install = ["", "```", "pip install torch transformers", "```"]
    lines = ["", "```python", *code.rstrip("\n").split("\n"), "```"]
    return ["", "## How to use it", *install, *lines, *(["", about] if about else [])]


def _training(facts: CardFacts) -> list[str]:
    tuning, pretraining = facts.fine_tuning, facts.pretraining
    lines = []
    if tuning is not None:
        lines += ["", "## How it was fine-tuned", "", *_fine_tuning(tuning)]
    if pretraining is not None:
        heading = "How its base was made" if facts.is_fine_tuned else "How it was made"
        lines += ["", f"## {heading}", "", *_pretraining(pretraining)]
    return lines


def _lineage(steps: Sequence[CardStep]) -> list[str]:
    """Return what was made from what, and how far a file is from the model."""
    if all(step.what == FINE_TUNED for step in steps):  # said under "How it was fine-tuned"
        return []
    return ["", "## What was made from what", "", *map(_step, steps)]


def _step(step: CardStep) -> str:
    origin = inline(step.made_from or "not recorded")
    if step.from_sha256:
        origin += f" (weights {step.from_sha256[:12]})"
    if step.what == FINE_TUNED:
        on = f" on {step.task}" if step.task else ""
        on += f" (at most {step.limit:,} examples a split)" if step.limit else ""
        said = f"{origin}, fine-tuned{on}"
        if step.score is not None:
            said += f", where it reaches {step.score:.1f}"
    elif step.what == PRUNED:
        left = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in step.sizes.items())
        by = f", by {' and '.join(step.scores)}" if step.scores else ""
        on = f" on {inline(step.data)}" if step.data else ""
        said = f"cut from {origin} to {left}{by}{on}"
    elif step.what == EXPORTED:
        said = f"exported from {origin}"
    else:
        said = f"{step.what} from {origin}"
    if step.bytes:
        said += f"; {size(step.bytes)}"
    if step.agreement is not None and step.rows:
        said += f"; {step.agreement:.1%} of the model's answers on {step.rows:,} rows"
        said += f" of {inline(step.data)}" if step.data else ""
    if step.metric and step.before is not None and step.after is not None:
        said += f"; {step.metric} there {step.before:.1f} before, {step.after:.1f} after"
    if step.difference is not None:
        said += f", largest difference of a logit {number(step.difference)}"
    mark = f" (sha256 {step.sha256[:12]})" if step.sha256 else ""
    return f"- {inline(step.file)}{mark}: {said}."


def _fine_tuning(tuning: CardFineTuning) -> Iterator[str]:
    base = _linked(tuning.base, tuning.base_hub, tuning.base_revision)
    yield f"- Base: {base}."
    if tuning.distillation is None:
        yield "- Loss: not recorded which of those below these weights were trained with."
    elif tuning.distillation:
        options = tuning.distillation
        weights = {name: value for name, value in options.items() if name.startswith("alpha_")}
        yield f"- Teacher: {inline(options.get('teacher_model', 'not recorded'))}, fine-tuned."
        yield f"- Loss: {_loss(weights, options.get('temperature'))}."
    else:
        yield "- Loss: that of the task's labels alone, without a teacher."
    if tuning.seed is not None:
        took = f", {duration(tuning.seconds)} of training" if tuning.seconds is not None else ""
        where = f" on {inline(tuning.machine)}" if tuning.machine else ""
        yield f"- These weights: seed {tuning.seed}{took}{where}."
    if tuning.examples is not None:
        added = f", and {tuning.transfer_texts:,} texts without labels"
        more = f"{added}, by the teacher's answers" if tuning.transfer_texts else ""
        yield f"- Data: {tuning.examples:,} examples of the training split{more}."
    yield from _settings("All hyper-parameters", tuning.settings)


def _loss(weights: Mapping[str, float], temperature: object) -> str:
    """Return the terms of a loss with their weights; those of weight 0 are not part of it."""
    terms = []
    for name, weight in weights.items():
        term = _TERMS.get(name) or inline(name)
        if name == "alpha_ce" and isinstance(temperature, int | float):
            term += f" at temperature {number(temperature)}"
        terms += [f"{number(weight)} x {term}"] if weight else []
    return "; ".join(terms) or "not recorded"


def _pretraining(made: CardPretraining) -> Iterator[str]:
    for teacher in made.teachers:
        yield f"- Teacher: {_teacher(teacher)}."
    if made.init:
        yield f"- Initial weights: {_initial(made)}."
    if made.weights:
        yield f"- Loss: {_loss(made.weights, made.settings.get('temperature'))}."
    if made.corpus is not None:
        yield f"- Corpus: {_corpus(made.corpus)}."
    if made.steps is not None:
        yield f"- Length: {made.steps:,} steps, one run."
    if made.perplexity is not None:
        yield (
            f"- Held-out perplexity: {number(round(made.perplexity, 2))}, on "
            "masks or tokens chosen as in training: comparable between runs on one corpus only."
        )
    yield f"- Hardware: {'; '.join(_hardware(made))}."
    if made.versions:
        versions = ", ".join(f"{inline(name)} {inline(v)}" for name, v in made.versions.items())
        yield f"- Versions: {versions}."
    yield from _history(made)
    yield from _settings("All settings that are not off", made.settings)


def _history(made: CardPretraining) -> Iterator[str]:
    """Yield the held-out losses, at most twenty of them, the last one always."""
    every = -(-len(made.history) // _MOST_SHOWN)
    shown = made.history[::-1][:: every or 1][::-1]
    rows = [
        (f"{step:,}", *("" if value is None else number(value) for value in values))
        for step, *values in shown
    ]
    if len(rows) > 1:
        columns = ("step", "held-out loss, weighted", "perplexity")
        yield from _details("Held-out loss while it was trained", table(columns, rows))


def _settings(title: str, settings: Mapping[str, object]) -> Iterator[str]:
    rows = [(inline(name), _setting(value)) for name, value in settings.items()]
    if rows:
        yield from _details(title, table(("setting", "value"), rows))


def _details(title: str, lines: list[str]) -> list[str]:
    return ["", f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _setting(value: object) -> str:
    return number(value) if isinstance(value, int | float) else inline(value)


def _teacher(teacher: CardTeacher) -> str:
    weights = f" (weights' sha256 {teacher.sha256[:16]})" if teacher.sha256 else ""
    return f"{_linked(teacher.name, teacher.hub, teacher.revision)}{weights}"


def _initial(made: CardPretraining) -> str:
    if made.layers:
        return f"layers {', '.join(map(str, made.layers))} of the teacher, counted from 0"
    words = {"random": "random", "teacher": "the teacher's", "given": "a model or config given"}
    return words.get(made.init or "", inline(made.init))


def _corpus(corpus: CardCorpus) -> str:
    names = ", ".join(map(inline, corpus.names)) or "names not recorded"
    if corpus.streamed:
        return f"{names}; read as a stream, so neither counted nor hashed"
    counts = []
    if corpus.texts is not None:
        counts.append(f"{corpus.texts:,} texts")
    if corpus.sequences is not None and corpus.tokens is not None:
        longest = f" of at most {corpus.max_length} tokens" if corpus.max_length else ""
        counts.append(f"{corpus.sequences:,} sequences{longest}, {corpus.tokens:,} tokens in all")
    if corpus.held_out is not None:
        counts.append(f"{corpus.held_out:,} sequences held out")
    if corpus.fingerprint:
        counts.append(f"fingerprint `{corpus.fingerprint}`")
    return "; ".join([names, *counts])


def _hardware(made: CardPretraining) -> Iterator[str]:
    yield inline(made.device) if made.device else "device not recorded"
    if made.processor:
        yield inline(made.processor)
    if made.threads is not None:
        yield f"{made.threads} CPU thread{'s' if made.threads != 1 else ''}"
    if made.seconds:
        stages = (f"{inline(name)} {duration(time)}" for name, time in made.seconds.items())
        yield ", ".join(stages)
    else:
        yield "time not recorded"


def _licence(facts: CardFacts, licence: str | None) -> list[str]:
    models = base_models_of(facts)
    where = ", ".join(link(name) for name in models)
    said = f"{inline(licence)}." if licence else "Not recorded."
    if where:
        said += f" It was made from {where}, whose terms apply as well."
    elif facts.is_distilled or facts.is_fine_tuned:
        said += (
            " The terms of the model that it was made from apply as well; no address is recorded."
        )
    return ["", "## Licence", "", f"{said} The data may have terms of their own."]


_PROJECT = """\
@software{{angels_share,
  title = {{Angel's Share: distils transformer language models, and measures what was lost}},
  version = {{{version}}}
}}"""
_PAPER = """\
@article{sanh2019distilbert,
  title = {DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter},
  author = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv preprint arXiv:1910.01108},
  year = {2019}
}"""


def _citation(facts: CardFacts) -> list[str]:
    made = facts.pretraining.versions.get("angels-share") if facts.pretraining else None
    project = _PROJECT.format(version=plain(made or __version__))
    lines = ["", "## Citation", "", "The code that made and measured it, and the method's paper:"]
    lines += ["", "```bibtex", project, "", _PAPER, "```"]
    if citations := facts.measured.citations:
        of_data = "; ".join(f"{inline(name)}: {inline(text)}" for name, text in citations.items())
        lines += ["", f"The data: {of_data}."]
    return lines
