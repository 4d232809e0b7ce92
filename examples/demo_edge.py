"""The demo's last step: its student as an int8 file, judged. `python examples/demo_edge.py DIR`.

Takes the student that `few-shot` fine-tuned and saved, exports it in float32 and int8, evaluates
all three as they are, and notes the line from teacher to edge in the demo's results.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from angels_share.cli import DONE, Command, run_command
from angels_share.errors import RunFailed
from angels_share.exported.session import PACKAGES
from angels_share.flags import Flag, Options
from angels_share.model_files import ONNX, ONNX_INT8
from distil_trainer.commands import export
from eval_harness.commands import lineage

TASK = "mnli"
STUDENT = "student/seed-11/none"
LABELS = ("student", "ONNX", "int8")


def run(options: Options) -> int:
    """Export the demo's student and judge the files; say so in one line where the extra lacks."""
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        print(f"skipped: {', '.join(missing)} not installed (the extra `export`)")
        return DONE
    from eval_harness.api import evaluate, load_results

    folder = Path(options.folder).expanduser().resolve()
    root, data = folder / "results", folder / "world" / "glue"
    saved = [
        path
        for result in load_results(root)
        if result.task == TASK and result.model.source == str(folder / STUDENT)
        for path in [root / "models" / result.key]
        if (path / "config.json").is_file()
    ]
    if not saved:
        raise RunFailed(f"{root}/models holds no student that was fine-tuned on {TASK}")
    model = str(saved[0])
    files = [folder / "edge" / name for name in (ONNX, ONNX_INT8)]
    if not all(file.is_file() for file in files):
        words = [model, "--quantize", "int8", "--output_dir", str(folder / "edge")]
        if (status := run_command(export.COMMAND, words)) != DONE:
            return status
    models = [model, *map(str, files)]
    evaluate(models, TASK, eval_only=True, data_dir=data, results_dir=root, workers=1)
    words = [*models, "--labels", *LABELS, "--tasks", TASK, "--results_dir", str(root)]
    return run_command(lineage.COMMAND, words)


COMMAND = Command(
    name="demo_edge",
    summary="exports the demo's student to int8, and judges it",
    flags=(Flag("folder", "the demo's folder", required=True, metavar="DIR", first=True),),
    run=run,
    examples=("python examples/demo_edge.py demo",),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
