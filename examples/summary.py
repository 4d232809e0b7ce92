"""What the demo shows at its end: one small table and three sentences, from the result files."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from angels_share.ablations import ABLATIONS, FULL
from eval_harness.intervals.differences import Difference, Scores, difference, holm
from eval_harness.results.speed import Timed, ratio
from eval_harness.results.store import find
from eval_harness.rows.row import Row
from eval_harness.tables.comparison import scores_by_seed
from eval_harness.tables.probed import ProbedRow
from eval_harness.tables.table0 import difference_text
from eval_harness.tables.write import load_results

_SHOWN = {"loss": "word loss ↓", "agreement": "agree %", "pairs": "pairs %", "wnli": "WNLI probe"}
_FEW_SHOT = ("cola", "mnli", "imdb")
_TOLD = 0.05
_STUDENT = ABLATIONS[FULL].title
_NAMES = {
    _STUDENT: "student (triple loss)",
    ABLATIONS["random-init"].title: "from a random start",
    **{
        ABLATIONS[name].title: f"without {ABLATIONS[name].title.removeprefix('no ')}"
        for name in ("no-ce", "no-cos", "no-mlm")
    },
}
_NOTES = """\
A made-up language: none of this is about English, or about the real tasks. L_ce: imitate the
teacher's probabilities; L_cos: its hidden states; L_mlm: guess hidden words. word loss: of hidden
words, nats each, in new text: what L_mlm minimises; agree: the teacher's first choice; pairs:
minimal pairs, 50 is guessing; probe: a linear map of frozen features; few-shot: CoLA, MNLI and
IMDb, fine-tuned on 300 examples each, mean of tasks and five seeds; M: million parameters; ms: per
pair of sentences, one core. These last four are of the student of pre-training seed 11 alone; the
share in Table 1 is of medians, without IMDb. n: pre-training seeds. ±: half of the 95 % interval of
the difference from the student's row, over evaluation examples and seeds; a row of one model is
taken as it is. *: significant at 5 % after Holm's correction for {count} differences
(few-shot: for {few})."""


class Summary:
    """The demo's results, as its end shows them.

    Args:
        root: the results folder.
        no_teacher: the label of the students that had no teacher.
    """

    def __init__(self, root: Path, no_teacher: str) -> None:
        self._ours, self._no_teacher = load_results(find(root), root), no_teacher
        self._probed = self._ours.probed
        self._fine_tuned = [row for row in self._ours.rows if not row.settings.get("method")]
        self._few_shot = self._scores(root)
        self._changes = self._few_shot_changes()

    def text(self) -> str:
        """Return the table, its notes and the sentences."""
        rows = [self._cells(row) for row in self._probed.rows]
        headers = ["", "n", *_SHOWN.values(), "few-shot", "SQuAD F1", "M", "ms"]
        table = tabulate(
            rows, headers, tablefmt="simple", disable_numparse=True,
            colalign=("left", *["right"] * (len(headers) - 1)),
        )  # fmt: skip
        sentences = (self._on_the_student(), self._on_distillation(), self._on_terms())
        wrapped = (textwrap.fill(f"- {each}", 100, subsequent_indent="  ") for each in sentences)
        notes = _NOTES.format(count=len(self._probed.adjusted), few=len(self._changes))
        return "\n".join([table, "", notes, "", *wrapped])

    # --- the table

    def _cells(self, row: ProbedRow) -> list[str]:
        name = "teacher" if row.is_teacher else _NAMES.get(row.label, row.label)
        timed = self._timed(row)
        return [
            name,
            str(row.count),
            *(self._measured(row, measure) for measure in _SHOWN),
            self._few_shot_cell(row),
            self._squad(row),
            f"{timed.parameters / 1e6:.2f}" if timed else "",
            f"{1000 * timed.timing(1).seconds / self._pairs:.1f}" if timed else "",
        ]

    def _measured(self, row: ProbedRow, name: str) -> str:
        scores = self._probed.scores.get(name, {}).get(row.label)
        if scores is None:
            return ""
        digits = next(each.digits for each in self._probed.measures if each.name == name)
        change = self._probed.differences.get((name, row.label))
        return _with_interval(
            float(scores.points.mean()), change, digits, told=self._is_told(name, row.label)
        )

    def _is_told(self, name: str, label: str) -> bool:
        return self._probed.adjusted.get((name, label), 1.0) < _TOLD

    def _few_shot_cell(self, row: ProbedRow) -> str:
        scores = self._few_shot.get(row.label)
        if scores is None:
            return ""
        change, adjusted = self._changes.get(row.label, (None, 1.0))
        return _with_interval(float(scores.points.mean()), change, 1, told=adjusted < _TOLD)

    def _squad(self, row: ProbedRow) -> str:
        found = self._row(row, "squad")
        cell = found.cells["squad"] if found else None
        return f"{100 * cell.median:.1f}" if cell and cell.median is not None else ""

    # --- where the numbers are

    def _row(self, row: ProbedRow, task: str) -> Row | None:
        """Return the row of one of a probed row's models, fine-tuned on a task."""
        keys = {result.model.key for results in row.results.values() for result in results}
        rows = (each for each in self._fine_tuned if each.model.key in keys and task in each.cells)
        return next(rows, None)

    def _scores(self, root: Path) -> dict[str, Scores]:
        """Return the few-shot scores by label, over the tasks that all have."""
        rows = {row.label: found for row in self._probed.rows if (found := self._row(row, "cola"))}
        base = rows.get(_STUDENT)
        if base is None:
            return {}
        shared = [task for task in _FEW_SHOT if all(task in row.cells for row in rows.values())]
        return {label: scores_by_seed(row, shared, root) for label, row in rows.items() if shared}

    def _few_shot_changes(self) -> Mapping[str, tuple[Difference, float]]:
        """Return each difference from the student, with Holm's p-value."""
        base = self._few_shot.get(_STUDENT)
        found = {
            label: change
            for label, scores in self._few_shot.items()
            if base is not None and label != _STUDENT and (change := difference(scores, base))
        }
        adjusted = holm([1.0 if each.p is None else each.p for each in found.values()])
        return {label: (found[label], p) for label, p in zip(found, adjusted, strict=True)}

    def _timed(self, row: ProbedRow) -> Timed | None:
        if not self._ours.speeds.sessions:
            return None
        keys = {result.model.key for results in row.results.values() for result in results}
        models = self._ours.speeds.sessions[-1].models
        return next((model for model in models if model.key in keys), None)

    @property
    def _pairs(self) -> int:
        return self._ours.speeds.sessions[-1].setup.pairs

    # --- the sentences

    def _on_the_student(self) -> str:
        teacher = next(row for row in self._probed.rows if row.is_teacher)
        student = next(row for row in self._probed.rows if row.label == _STUDENT)
        theirs, ours = self._timed(teacher), self._timed(student)
        scores = [self._few_shot.get(row.label) for row in (teacher, student)]
        parts = []
        if theirs and ours:
            faster = ratio(theirs.timing(1), ours.timing(1)).value
            share = 100 * ours.parameters / theirs.parameters
            parts.append(
                f"has {share:.0f} % of its teacher's parameters and is {faster:.1f} times as fast"
            )
        if scores[0] is not None and scores[1] is not None:
            high, low = (float(each.points.mean()) for each in scores if each is not None)
            parts.append(
                f"keeps {100 * low / high:.1f} % of its few-shot mean ({low:.1f} of {high:.1f}"
                f"{self._of_random_start(high)})"
            )
        return f"The student {', and '.join(parts) or 'was neither timed nor fine-tuned'}."

    def _of_random_start(self, teacher: float) -> str:
        scores = self._few_shot.get(ABLATIONS["random-init"].title)
        if scores is None:
            return ""
        return f"; from a random start {100 * float(scores.points.mean()) / teacher:.1f} %"

    def _on_distillation(self) -> str:
        scores = self._probed.scores.get("loss", {})
        kinds = (_STUDENT, ABLATIONS["random-init"].title, self._no_teacher)
        found = [scores.get(label) for label in kinds]
        student, random_start, alone = found
        if student is None or random_start is None or alone is None:
            return "What the teacher is worth was not measured."
        parts = (("its layers as a start", difference(student, random_start)),
                 ("its lessons, from a random start", difference(random_start, alone)))  # fmt: skip
        said = "; ".join(
            f"{what} {difference_text(change, 2, told=False)}" for what, change in parts if change
        )
        return (
            "What the word loss owes to the teacher, after the same number of the students' own "
            f"steps: {said}."
        )

    def _on_terms(self) -> str:
        labels = [ABLATIONS[name].title for name in ("no-ce", "no-cos", "no-mlm")]
        parts = "; ".join(map(self._on_term, labels))
        return f"What the word loss gains or loses without one term: {parts}."

    def _on_term(self, label: str) -> str:
        term = label.removeprefix("no ")
        change = self._probed.differences.get(("loss", label))
        if change is None or change.half is None:
            return f"{term} not measured"
        is_told = "significant" if self._is_told("loss", label) else "not significant"
        return f"{term} {difference_text(change, 3, told=False)} ({is_told})"


def _with_interval(value: float, change: Difference | None, digits: int, *, told: bool) -> str:
    """Return `1.37 ±0.03*`: a value, and how well its difference from the student is known."""
    if change is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} {difference_text(change, digits, told=told).partition(' ')[2]}"
