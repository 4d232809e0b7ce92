"""Our metrics as modules of the library `evaluate`: offline, and combined as that library does.

    import evaluate
    from eval_harness.metrics import load_metric

    mrpc = load_metric("mrpc")                           # or a single metric: load_metric("f1")
    mrpc.compute(predictions=[1, 0], references=[1, 1])  # its f1, accuracy and score
    both = evaluate.combine([load_metric("accuracy"), load_metric("matthews")])

`evaluate.load("glue", "mrpc")` downloads a script and runs it; these need no network, run no code
but the package's, and use the same functions as the tables. Inputs, names and scales are those of
that library's `glue`, `squad` and `squad_v2`: shares of 1 for GLUE, percent for SQuAD. `score` is
what a table shows, the mean of a task's primary metrics; `squad_v2`'s search for the best threshold
is not there.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, get_args

import evaluate
from datasets import Features, Value
from datasets import Sequence as Several

from angels_share.errors import UserError
from angels_share.names import nearest
from eval_harness.squad.metrics import scores_of, summary
from eval_harness.tasks.entities import ENTITY_METRICS, entity_metrics
from eval_harness.tasks.kinds import PERPLEXITY, TEXTS, TOKENS
from eval_harness.tasks.metrics import compute_metrics
from eval_harness.tasks.registry import TASKS, LabelMetric, Task

_METRICS = (*get_args(LabelMetric), *ENTITY_METRICS)
_REGRESSIONS = ("pearson", "spearman")
_THEIR_NAMES = {"matthews": "matthews_correlation", "pearson": "pearson", "spearman": "spearmanr"}


def load_metric(name: str | Task, **settings: Any) -> evaluate.EvaluationModule:
    """Return the metrics of a task, or a single metric, as a module of `evaluate`.

    Args:
        name: a task's name (`mrpc`, `squad`, ...) or a custom `Task`: all of its metrics and the
            score; or one of `accuracy`, `f1`, `f1_macro`, `f1_micro`, `matthews`, `pearson`,
            `spearman`; or of `entity_f1`, `entity_precision`, `entity_recall` (conlleval's) and
            `strict_f1`, `strict_precision`, `strict_recall`.
        settings: of `evaluate.EvaluationModule`, such as `num_process` and `experiment_id`. In a
            single process the examples are kept in memory unless `keep_in_memory=False`.

    Raises:
        UserError: no such task or metric.
    """
    known = signature(evaluate.EvaluationModule).parameters.keys() - {"kwargs", "config_name"}
    for setting in settings:
        if setting not in known:
            raise UserError(f"unknown setting {setting!r}{nearest(setting, known)}")
    if settings.get("num_process", 1) == 1:
        settings.setdefault("keep_in_memory", True)  # no files, and so none that two runs share
    task = name if isinstance(name, Task) else _task_named(name)
    if task.kind == PERPLEXITY:
        raise UserError(
            f"{task.name}: a perplexity is computed from a model, not from answers: use "
            "run_glue.py --eval_only, or eval_harness.api.evaluate with eval_only=True"
        )
    if task.kind == TEXTS:
        return _OfLabels(task, is_single=name in _METRICS, **settings)
    if task.kind == TOKENS:
        return _OfTags(task, is_single=name in _METRICS, **settings)
    return _OfAnswers(task, **settings)


def _task_named(name: str) -> Task:
    """Return the task of this name; for a metric's name a task that has just this metric."""
    for task in TASKS:
        if name == task.name:
            return task
    if name not in _METRICS:
        known = [*(task.name for task in TASKS), *_METRICS]
        raise UserError(
            f"unknown metric {name!r}{nearest(name, known)} (known: {', '.join(known)})"
        )
    if name in ENTITY_METRICS:
        return Task(name, name, ("tokens",), ("O",), (name,), kind=TOKENS)
    labels = () if name in _REGRESSIONS else ("0", "1")
    return Task(name, name, ("text",), labels, (name,))  # type: ignore[arg-type]


class _Module(evaluate.Metric):
    """What both kinds share; `evaluate` asks for `_info` while it is being set up."""

    def __init__(self, task: Task, **settings: Any) -> None:
        self._task = task
        super().__init__(config_name=task.name, **settings)
        # The prefix where combined modules have results of one name.
        self.info.module_name = task.name

    def _info(self) -> evaluate.MetricInfo:
        metrics = ", ".join((*self._task.primary, *self._task.also))
        return evaluate.MetricInfo(
            description=f"{self._task.title}: {metrics}",
            citation=self._task.citation,
            inputs_description=self._inputs,
            features=Features(self._features()),
        )

    _inputs = ""

    def _features(self) -> Mapping[str, Any]:
        raise NotImplementedError


class _OfLabels(_Module):
    """The metrics of a task of texts: class ids, or numbers of a regression."""

    _inputs = "\npredictions, references: class ids; for a regression, numbers.\n"

    def __init__(self, task: Task, *, is_single: bool, **settings: Any) -> None:
        self._is_single = is_single
        super().__init__(task, **settings)

    def _features(self) -> Mapping[str, Any]:
        # As numbers of any kind: integers would cut 0.7 off to class 0 without a word.
        return {"predictions": Value("float64"), "references": Value("float64")}

    def _compute(
        self, predictions: Sequence[float], references: Sequence[float]
    ) -> dict[str, float]:
        if not self._task.is_regression:
            predictions, references = map(_as_classes, (predictions, references))
        found = compute_metrics(self._task, predictions, references)
        score = found.pop("score")
        named = {_THEIR_NAMES.get(name, name): value for name, value in found.items()}
        return named if self._is_single else {**named, "score": score}


class _OfTags(_Module):
    """The metrics of named entities, from the tags of sentences."""

    _inputs = "\npredictions, references: a list of tags, such as B-PER, for each sentence.\n"

    def __init__(self, task: Task, *, is_single: bool, **settings: Any) -> None:
        self._is_single = is_single
        super().__init__(task, **settings)

    def _features(self) -> Mapping[str, Any]:
        tags = Several(Value("string"))
        return {"predictions": tags, "references": tags}

    def _compute(
        self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        found: dict[str, float] = entity_metrics(references, predictions)
        primary = self._task.primary
        if self._is_single:
            return {name: found[name] for name in primary}
        return {**found, "score": sum(found[name] for name in primary) / len(primary)}


def _as_classes(values: Sequence[float]) -> list[int]:
    if odd := [value for value in values if value != int(value)]:
        raise UserError(f"{odd[0]} is no class id: give the most probable class, not its score")
    return [int(value) for value in values]


_PARTS = {"": "", "HasAns_": "has_answer_", "NoAns_": "no_answer_"}
"""The prefixes of SQuAD 2.0's results there, and here."""


class _OfAnswers(_Module):
    """Exact match and F1 of answers to questions, in percent, by SQuAD's official rules."""

    _inputs = (
        "\npredictions: {id, prediction_text}, and for SQuAD 2.0 no_answer_probability; above "
        "no_answer_threshold [1.0] it means no answer. references: {id, answers}, with the gold "
        "answers' text and answer_start.\n"
    )

    def _features(self) -> Mapping[str, Any]:
        text = Value("string")
        answers = {"text": Several(text), "answer_start": Several(Value("int32"))}
        predicted = {"id": text, "prediction_text": text}
        if self._task.allows_no_answer:
            predicted["no_answer_probability"] = Value("float32")
        return {
            "predictions": predicted,
            "references": {"id": text, "answers": answers},
        }

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        if not references:
            raise UserError("no questions to score")
        texts = {
            str(each["id"]): ""
            if each.get("no_answer_probability", 0.0) > no_answer_threshold
            else str(each["prediction_text"])
            for each in predictions
        }
        if missing := [each["id"] for each in references if each["id"] not in texts]:
            raise UserError(f"no prediction for question {missing[0]!r}")
        golds = [list(each["answers"]["text"]) for each in references]
        version2 = self._task.allows_no_answer
        scores = scores_of([texts[each["id"]] for each in references], golds, version2=version2)
        found = summary(scores, golds, version2=version2)
        percent = {name: 100 * value for name, value in found.items()}
        if not version2:
            return percent
        named: dict[str, float] = {}
        for theirs, ours in _PARTS.items():
            if f"{ours}f1" in percent:
                named[f"{theirs}exact"] = percent[f"{ours}exact_match"]
                named[f"{theirs}f1"] = percent[f"{ours}f1"]
        answered = sum(map(bool, golds))
        totals = {"": len(golds), "HasAns_": answered, "NoAns_": len(golds) - answered}
        return named | {f"{part}total": count for part, count in totals.items() if count}
