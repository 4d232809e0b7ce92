"""The students of the paper's Table 4: what each leaves out of the full triple loss.

One table, which pre-training, the reading of a student's record and Table 4 itself all use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ablation:
    """One student of Table 4.

    Attributes:
        name: the word of `--ablation`, of the student's folder and of its record.
        title: the label of its row in Table 4.
        changes: the options of pre-training that it changes.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The parts of a recipe in which it differs: weights, or where the student began."""
        return tuple("init" if name == "student_init" else name for name in self.changes)


FULL = "none"
"""The ablation that leaves nothing out."""

ABLATIONS: Mapping[str, Ablation] = {
    each.name: each
    for each in (
        Ablation(FULL, "triple loss"),
        Ablation("no-ce", "no L_ce", {"alpha_ce": 0.0}),
        Ablation("no-cos", "no L_cos", {"alpha_cos": 0.0}),
        Ablation("no-mlm", "no L_mlm", {"alpha_mlm": 0.0, "alpha_clm": 0.0}),
        Ablation("random-init", "triple loss, random initialization", {"student_init": "random"}),
    )
}
