"""The record in a student's folder: steps are added, and a damaged one is refused in one line."""

import json

import pytest

from angels_share.errors import UserError
from angels_share.student_record import LINEAGE, RECORD, add_step, read_record, steps_of_weights


def test_steps_are_added_beside_what_is_there(tmp_path):
    """Prevents a step that replaces a training's record, or two lines about one exported file."""
    (tmp_path / RECORD).write_text(json.dumps({"status": "complete"}))
    cut = {"what": "prune", "file": "model.safetensors", "sha256": "1"}
    file = {"what": "export", "file": "onnx/model.onnx", "sha256": "2"}
    add_step(tmp_path, cut)
    add_step(tmp_path, file, replace=True)
    add_step(tmp_path, {**file, "sha256": "3"}, replace=True)
    record = read_record(tmp_path)
    assert record["status"] == "complete"
    assert [step["sha256"] for step in record[LINEAGE]] == ["1", "3"]
    assert steps_of_weights(tmp_path) == [cut]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"lineage": {}}', '{"lineage": [3]}', '{"lineage": [{"what": "export"}]}']
)
def test_a_damaged_record_is_one_line(tmp_path, text):
    """Prevents a KeyError after files were moved into place."""
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match="can't be read as a record"):
        add_step(tmp_path, {"what": "export", "file": "x"})
