"""Results, times and students made up for the report: data for all its charts."""

import json
from dataclasses import replace

import made_results as made
from made_results import BERT, STUDENT, seeds

from eval_harness.results.speed import Machine, Session, Setup, Timed, Timing, write_session

ODD = replace(made.model("odd", "77777777"), name='<script>alert("$x$")</script>')
SETUP = Setup(None, None, 100, full=False, repeats=2, seed=1, max_seq_length=128, threads=(1,),
              batch_sizes=(1,), dtype="float32")  # fmt: skip


def session(*models, **more):
    timed = tuple(
        Timed(name, key, False, count, count, None, None,
              (Timing(1, 1, (seconds, seconds), 1.0, 2.0, 3.0),))
        for name, key, count, seconds in models
    )  # fmt: skip
    machine = Machine("a chip", 2, "Linux x86_64", "cpu")
    made_then = Session(timed, SETUP, machine, "1", None, {}, {}, 0.0, "2026-01-02T00:00:00")
    return replace(made_then, **more)


TIMED = session(("bert", BERT.key, 109_500_000, 4.0), ("mine", STUDENT.key, 66_400_000, 2.0))


def write_students(folder):
    """Write two students as `run_pretrain_distill` does; one lacks its last checkpoint."""
    for name, last in (("full", 20), ("no-ce", 10)):
        for step in range(10, last + 1, 10):
            entries = [
                {"step": at, "loss": 9.0, "loss_mlm": 5.0 - at / 10, "loss_cos": 1 / at}
                for at in range(10, step + 1, 10)
            ]
            state = folder / name / f"checkpoint-{step}" / "trainer_state.json"
            state.parent.mkdir(parents=True)
            state.write_text(json.dumps({"log_history": entries}))
    record = {"validation_history": [{"step": 20, "eval_loss": 1.0, "eval_loss_mlm": 3.25}]}
    (folder / "full" / "distil.json").write_text(json.dumps(record))
    return folder


def write_results(root):
    """Write data for all charts: two tasks of five models, an ablation, questions, times."""
    right, wrong = made.predictions(), made.predictions(said=(0, 1, 1, 1))
    for task, low in (("rte", 0.5), ("mrpc", 0.6)):
        made.put(root, *seeds(0.8, 0.82, of=BERT, task=task), said=right)
        made.put(root, *seeds(low, low + 0.1, 0.7, task=task), said=wrong)
        made.put(root, *seeds(low, of=ODD, task=task))
        for name, score in (("none", 0.7), ("no-ce", 0.65)):
            made.put(root, *seeds(score, of=made.student(name), task=task))
    made.put(root, *seeds(0.91, 0.92, task="imdb"))
    given = made.squad_settings(overrides={"max_query_length": 8})
    first, *others = made.on_squad(0.1, 0.4, 0.5, given=given)
    nothing = replace(first, marks=("degenerate: one answer for all of validation",))
    made.put(root, nothing, *others, said=made.answers())
    write_session(root, TIMED)
