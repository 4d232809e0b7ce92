"""One fine-tuning run of transformers' own scripts against the same run of ours.

    DISTIL_DATA=folder python -m benchmarks.their_scripts --glue transformers/.../run_glue.py \
        --qa transformers/.../run_qa.py --model FOLDER

Their run_glue.py on MRPC and their run_qa.py on SQuAD's stand-in (with trainer_qa.py and
utils_qa.py beside it), both with dynamic padding (`--pad_to_max_length False`), against run_glue.py
and run_squad_distill.py of this project: the same examples, hyper-parameters and threads, in turns,
each run a process of its own, which saves no checkpoint and finds no cache of the data. (Theirs
saves the model at its end, after training's seconds.) Printed are the seconds of the whole command
(start, data, training, evaluation, result files), of training alone as each reports it, and the dev
score of each.

Their scripts fetch their metrics from the Hub, by `evaluate.load("accuracy")` and `"squad"`.
Without a network, put such modules beside the script: accuracy/accuracy.py, squad/squad.py.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, short_runs
from benchmarks.short_runs import ROOT
from eval_harness.data.squad_files import Questions, read_squad
from eval_harness.results.record import TaskResult
from eval_harness.results.store import find


@dataclass(frozen=True)
class Took:
    """What a run took, and what it scored.

    Attributes:
        command: seconds of the whole command.
        training: seconds of training, as the command reports them.
        score: accuracy on MRPC, F1 on SQuAD, in per cent.
    """

    command: float
    training: float
    score: float


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--glue", type=Path, help="run_glue.py of transformers [not measured]")
    parser.add_argument("--qa", type=Path, help="run_qa.py of transformers [not measured]")
    parser.add_argument("--model", help="model folder [tiny-bert of DISTIL_DATA]")
    parser.add_argument("--limit", type=int, default=1000, help="examples of each split [1000]")
    parser.add_argument("--turns", type=int, default=3, help="of both [3]")
    options = parser.parse_args()
    if not (options.glue or options.qa):
        parser.error("name a script: --glue FILE, --qa FILE, or both")
    root = short_runs.real_data()
    model = str(Path(options.model or root / "models" / "tiny-bert").resolve())
    print(f"{machine.describe('cpu')}; {Path(model).name}, {options.limit} examples")
    for script, measured in ((options.glue, on_mrpc), (options.qa, on_squad)):
        if script is not None:
            with tempfile.TemporaryDirectory() as scratch:
                measured(script.resolve(), model, root, Path(scratch), options)


def on_mrpc(
    script: Path, model: str, root: Path, scratch: Path, options: argparse.Namespace
) -> None:
    """Compare on MRPC."""
    files = short_runs.write_files(scratch, root / "data" / "hub", options.limit)

    def theirs(seed: str, out: Path) -> Took:
        command = short_runs.alone([str(script)], model, files, seed, out)
        return of_theirs(command, out, "accuracy", 100)

    def ours(seed: str, out: Path) -> Took:
        command = short_runs.together(model, [seed], root, 1, options.limit, out)
        return of_ours(command, out, lambda result: 100 * result.scores["validation"]["accuracy"])

    in_turns("MRPC", theirs, ours, scratch, options.turns)


def on_squad(
    script: Path, model: str, root: Path, scratch: Path, options: argparse.Namespace
) -> None:
    """Compare on the stand-in for SQuAD."""
    nested, flat = {}, {}
    for split, name in (("train", "standin-train.json"), ("validation", "standin-dev.json")):
        nested[split] = str(root / "data" / "squad" / name)
        flat[split] = str(scratch / f"{split}.json")
        rows = rows_of(read_squad(Path(nested[split]), limit=options.limit))
        Path(flat[split]).write_text(json.dumps({"data": rows}), encoding="utf-8")
    given = ["--per_device_train_batch_size", "12", "--learning_rate", "1e-4"]
    given += ["--num_train_epochs", "1", "--max_seq_length", "384", "--doc_stride", "128"]

    def theirs(seed: str, out: Path) -> Took:
        command = [sys.executable, str(script), "--model_name_or_path", model, *given]
        command += ["--train_file", flat["train"], "--validation_file", flat["validation"]]
        command += ["--do_train", "--do_eval", "--pad_to_max_length", "False", "--seed", seed]
        command += ["--output_dir", str(out), *short_runs.AS_OURS]
        return of_theirs(command, out, "f1", 1)

    def ours(seed: str, out: Path) -> Took:
        command = [sys.executable, str(ROOT / "run_squad_distill.py"), "--model", model, *given]
        command += ["--train_file", nested["train"], "--validation_file", nested["validation"]]
        command += ["--limit", str(options.limit), "--seeds", seed, "--results_dir", str(out)]
        return of_ours(command, out, lambda result: 100 * result.scores["validation"]["f1"])

    in_turns("SQuAD's stand-in", theirs, ours, scratch, options.turns)


def rows_of(questions: Questions) -> list[dict]:
    """Return questions as the rows that their script reads."""
    return [
        {
            "id": questions.ids[number],
            "title": "",
            "context": questions.contexts[questions.context_of[number]],
            "question": questions.texts[number],
            # Where an answer begins is used in training alone, and only the first's.
            "answers": {
                "text": list(questions.answers[number]),
                "answer_start": [int(questions.answer_starts[number])] * len(answers),
            },
        }
        for number, answers in enumerate(questions.answers)
    ]


def of_theirs(command: list[str], out: Path, metric: str, scale: float) -> Took:
    """Run their script, and read what it says of itself."""
    elapsed = short_runs.seconds(
        [command],
        Path(command[1]).parent,  # where `evaluate` finds metrics without a network
        HF_DATASETS_CACHE=str(out / "cache"),
    )
    said = json.loads((out / "all_results.json").read_text())
    return Took(elapsed, said["train_runtime"], scale * said[f"eval_{metric}"])


def of_ours(command: list[str], out: Path, score: Callable[[TaskResult], float]) -> Took:
    """Run our script, and read its result."""
    elapsed = short_runs.seconds([command], ROOT)
    (result,) = find(out).results
    return Took(elapsed, result.times["train"], score(result))


def in_turns(
    task: str,
    theirs: Callable[[str, Path], Took],
    ours: Callable[[str, Path], Took],
    scratch: Path,
    turns: int,
) -> None:
    """Run both in turns, each turn with a seed of its own, and print a line for each."""
    took: dict[str, list[Took]] = {"theirs": [], "ours": []}
    for turn in range(1, turns + 1):
        for name, run in (("theirs", theirs), ("ours", ours)):
            took[name].append(run(str(turn), scratch / f"{name}-{turn}"))
    for name, runs in took.items():
        scores = " ".join(f"{run.score:.1f}" for run in runs)
        print(
            f"{task:16} {name:6} command {compared(took, name, 'command')}, "
            f"training {compared(took, name, 'training')}; dev by seed {scores}"
        )


def compared(took: dict[str, list[Took]], name: str, part: str) -> str:
    """Return a variant's median seconds with their range, and what it is of ours."""
    times = {each: [getattr(run, part) for run in runs] for each, runs in took.items()}
    median = statistics.median(times[name])
    share = median / statistics.median(times["ours"])
    return f"{median:.1f} s ({min(times[name]):.1f} to {max(times[name]):.1f}), {share:.2f} of ours"


if __name__ == "__main__":
    main()
