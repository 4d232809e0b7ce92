"""The ablations of the paper's Table 4: what each leaves out of the full triple loss.

Pre-training, the reader of a student's record and Table 4 itself all use this one table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ablation:
    """One student of Table 4.

    Attributes:
        name: the value of `--ablation`; also the student's folder and an entry of its record.
        title: the label of its row in Table 4.
        changes: the pre-training options that it overrides.
    """

    name: str
    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The parts of the recipe that it changes: loss weights, or "init", the initialization."""
        return tuple("init" if name == "student_init" else name for name in self.changes)


FULL = "none"
"""The ablation that leaves nothing out."""

ABLATIONS: Mapping[str, Ablation] = {
    ablation.name: ablation
    for ablation in (
        Ablation(FULL, "triple loss"),
        Ablation("no-ce", "no L_ce", {"alpha_ce": 0.0}),
        Ablation("no-cos", "no L_cos", {"alpha_cos": 0.0}),
        Ablation("no-mlm", "no L_mlm", {"alpha_mlm": 0.0, "alpha_clm": 0.0}),
        Ablation("random-init", "triple loss, random initialization", {"student_init": "random"}),
    )
}
