"""The record in a student's folder: steps are added, and a damaged one is refused in one line."""

import json

import pytest

from angels_share.errors import UserError
from angels_share.files import sha256_of_file
from angels_share.student_record import (
    LINEAGE,
    RECORD,
    add_step,
    read_record,
    steps_of_files,
    steps_of_weights,
)


def test_steps_are_those_of_what_is_there(tmp_path):
    """Prevents a record of files that are gone, or of weights that were trained on since."""
    (tmp_path / RECORD).write_text(json.dumps({"status": "complete"}))
    (tmp_path / "onnx").mkdir()
    steps = []
    for name in ("model.safetensors", "onnx/model.onnx"):
        (tmp_path / name).write_text(name)
        made = {"what": "x", "file": name, "sha256": sha256_of_file(tmp_path / name)}
        add_step(tmp_path, made)
        steps.append(made)
    assert read_record(tmp_path) == {"status": "complete", LINEAGE: steps}
    assert steps_of_weights(tmp_path) == steps[:1]
    assert steps_of_files(tmp_path) == steps[1:]
    for name in ("model.safetensors", "onnx/model.onnx"):
        (tmp_path / name).write_text("other")
    assert steps_of_weights(tmp_path) == steps_of_files(tmp_path) == []
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "onnx/model.onnx").unlink()
    assert steps_of_weights(tmp_path) == steps_of_files(tmp_path) == []


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"lineage": {}}', '{"lineage": [3]}', '{"lineage": [{"what": "export"}]}']
)
def test_a_damaged_record_is_one_line(tmp_path, text):
    """Prevents a KeyError after files were moved into place."""
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match="can't be read as a record"):
        add_step(tmp_path, {"what": "export", "file": "x"})
