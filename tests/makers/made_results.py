"""Made-up results with every field of real ones, and readers of printed tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from angels_share.ablations import ABLATIONS
from angels_share.files import hash_of
from angels_share.names import short_name_of
from eval_harness.results.predictions import AnsweredQuestions, ClassPredictions
from eval_harness.results.record import TaskResult, sealed
from eval_harness.results.store import publish
from eval_harness.runs.run import Distilled, Model, Settings
from eval_harness.tasks.lookup import task_named

ROW = {
    "recipe": 1,
    "overrides": {},
    "limit": None,
    "dtype": "float32",
    "choose": "last",
    "method": None,
}
HUB = {"source": "nyu-mll/glue", "revision": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"}
PROVENANCE = {
    "version": "0.1.0",
    "commit": None,
    "libraries": {"torch": "2.13.0", "transformers": "5.23.0"},
    "machine": {"cores": 2},
    "threads": 2,
    "device": "cpu",
}


def model(name="distilbert", digest="0123abcd", teacher=None):
    row = short_name_of(name)
    return Model(name, name, digest, row.repo_id if row else name, digest * 5, teacher)


BERT = model("bert", "99999999")
STUDENT = model("distilbert", "0123abcd", teacher="bert")


TRIPLE_LOSS = {"alpha_ce": 5.0, "alpha_cos": 1.0, "alpha_mlm": 2.0, "alpha_mse": 0.0}


def student(ablation="none", study="study", rest="00112233445566ff", **loss):
    """Return a student of `--ablation`; each has a digest of its own."""
    left_out = ABLATIONS[ablation].left_out
    weights = {name: 0.0 if name in left_out else weight for name, weight in TRIPLE_LOSS.items()}
    made = Distilled(
        ablation, {**weights, **loss}, "random" if "init" in left_out else "teacher", rest
    )
    name, digest = f"{study}/{ablation}", hash_of([study, ablation, rest, loss])
    return Model(name, ablation, digest, f"/models/{name}", None, "bert", made)


def distilled_from(teacher, **options):
    given = {"alpha_ce": 0.5, "alpha_task": 0.5, "temperature": 2.0, **options}
    return {
        "name": "distil",
        "factory": "distil_trainer.harness:make_trainer",
        "options": {"teacher_model": teacher.key, **given},
    }


def settings(task="rte", content=None, values=None, inputs=None, labels=None, **row):
    content = content or f"{task:0<16}"
    values = {"learning_rate": 3e-5, "num_train_epochs": 3.0, **(values or {})}
    own = {
        "version": 1,
        "labels": labels or ["entailment", "not_entailment"],
        "measures": ["accuracy"],
        "columns": ["sentence1", "sentence2"],
        "data": content,
        "values": values,
        "inputs": inputs or {},
    }
    return Settings({**ROW, **row}, own)


def result(of=None, task="rte", seed=1, score=0.6, scores=None, given=None, **more):
    given = given or settings(task)
    made = TaskResult(
        model=of or model(),
        task=task,
        seed=seed,
        settings=given,
        score=score,
        scores=scores or {"validation": {"accuracy": score, "score": score}},
        marks=(),
        data={**HUB, "content": given.task["data"], "examples": {"validation": 4}, "overlap": 0},
        provenance=PROVENANCE,
        times={"train": 1.5},
        history=({"step": 1, "loss": 0.7},),
        finished="2026-01-01T00:00:00+00:00",
    )
    return replace(made, **more)


def predictions(labels=(0, 1, 1, 0), said=None, split="validation"):
    """Return logits whose argmax is `said`; for numeric labels they are `said` itself."""
    labels = np.asarray(labels)
    said = labels if said is None else np.asarray(said)
    if labels.dtype.kind == "f":
        logits = said.astype(np.float32)[:, None]
    else:
        logits = np.eye(max(labels.max(), said.max()) + 1, dtype=np.float32)[said]
    return ClassPredictions(
        [split] * len(labels), [str(i) for i in range(len(labels))], labels, logits
    )


def scoring(accuracy):
    """Return predictions of which this share is right, to a hundredth."""
    said = np.array([0, 1] * 50)
    said[round(100 * accuracy) :] ^= 1
    return predictions([0, 1] * 50, said)


def rewrite(path, change):
    """Replace the record in a result's file by `change(record)`, sealed anew."""
    Path(path).write_text(sealed(change(json.loads(Path(path).read_text()))))


def unsealed(record, schema=3):
    """Return a record as earlier versions saved it."""
    later = ("seal", "withheld", "replaces")
    return {**{name: record[name] for name in record if name not in later}, "schema": schema}


def answers(texts=("a dog", "", "1066"), exact=(1.0, 0.0, 0.0), f1=(1.0, 0.0, 0.4), odds=None):
    """Return answers to questions `q0`, `q1`, ...; the second has no possible answer span."""
    odds = [-3.5, np.inf, 0.25] if odds is None else odds
    numbers = (np.array(each, dtype=np.float64) for each in (exact, f1, odds))
    ids = [f"q{number}" for number in range(len(texts))]
    return AnsweredQuestions(["validation"] * len(ids), ids, list(texts), *numbers)


def put(root, *results, said=None):
    for each in results:
        assert publish(root, each, said or predictions())


def seeds(*scores, of=None, task="rte", first=1, given=None, asked=None, day=1, **more):
    provenance = {**PROVENANCE, **({"seeds": asked} if asked else {})}
    finished = f"2026-01-{day:02}T00:00:00+00:00"
    more = {"provenance": provenance, "finished": finished, **more}
    return [
        result(of or STUDENT, task, seed=seed, score=score, given=given, **more)
        for seed, score in enumerate(scores, first)
    ]


def on_squad(*scores, task="squad", exact=None, given=None, **more):
    """Return SQuAD results with these F1 scores; exact match defaults to a tenth less."""
    exact = exact or [round(score - 0.1, 6) for score in scores]
    made = seeds(*scores, task=task, given=given or squad_settings(task), **more)
    return [
        replace(each, scores={"validation": {"exact_match": em, "f1": f1, "score": f1}})
        for each, f1, em in zip(made, scores, exact, strict=True)
    ]


def squad_settings(task="squad", **row):
    """Return the settings of a SQuAD run."""
    values = dict(task_named(task).fine_tuning)
    made = settings(task, values=values, **row)
    own = {"labels": [], "measures": ["f1", "exact_match"], "columns": ["question", "context"]}
    return Settings(made.row, {**made.task, **own})


def grid(text):
    """Return a table's rows, each a dictionary by column; blocks of a wide one are joined."""
    rows = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            head, _, *body = [
                [cell.strip() for cell in line.strip("|").split("|")] for line in lines
            ]
            rows = rows or [{} for _ in body]
            for row, made in zip(rows, body, strict=True):
                row.update(zip(head, made, strict=True))
    return rows


def cells(text):
    """Return a table's rows by their first cell, each a dictionary by column."""
    return {next(iter(row.values())): row for row in grid(text)}


def notes(text):
    """Return a table's notes, each in one line."""
    return [line[2:] for line in text.replace("\n  ", " ").splitlines() if line.startswith("- ")]


def note(text, start):
    (found,) = [line for line in notes(text) if line.startswith(start)]
    return found


def model_folder(path, weights=b"weights", **config):
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    (path / "vocab.txt").write_text("[PAD]\n[UNK]\nword\n")
    return path
