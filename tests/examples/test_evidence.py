"""The commands of the study that results/README.md tells of: each is one that can be typed."""

import json
import re
import runpy
from dataclasses import replace

import made_results
import numpy as np
import pytest
import tiny
from example_scripts import example_module
from places import ROOT

from angels_share.cli import run_command
from angels_share.flags import parse
from distil_trainer.cli import PRETRAIN
from eval_harness.commands import glue, probe, squad
from eval_harness.data.squad_files import read_squad
from eval_harness.results.store import publish
from eval_harness.runs.models import identify

DIVIDING = {
    f"examples/{name}.py": runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    for name in ("evidence_text", "evidence_questions")
}
COMMANDS = {
    **{path: module["COMMAND"] for path, module in DIVIDING.items()},
    "run_pretrain_distill.py": PRETRAIN,
    "run_glue.py": glue.COMMAND,
    "run_squad_distill.py": squad.COMMAND,
    "eval_harness": probe.COMMAND,
}


@pytest.fixture
def evidence():
    with example_module("evidence") as module:
        yield module


def parsed(words):
    """The options of a command, as it reads them itself."""
    command = next(COMMANDS[word] for word in words if word in COMMANDS)
    own = [word for word in words[1:] if word not in (*COMMANDS, "-m", "probe")]
    return parse(command.flags, own, takes_training_flags=command.training is not None)


@pytest.mark.parametrize("part", ["tiny", "minilm"])
def test_every_command_of_the_study_is_understood(tmp_path, evidence, part):
    """Prevents a study that stops after hours, at a flag that is called otherwise by now."""
    at = evidence.Places(tmp_path, part, tmp_path / "data", tmp_path / "results" / part)
    kinds = (*evidence.KINDS, *evidence.CHOICES)
    jobs = [*evidence.models(evidence.PARTS[part], at), *evidence.measurements(at, kinds)]
    jobs += [*evidence.choices(evidence.PARTS[part], at), *evidence.teachers_answering(at)]
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        assert parsed(job.words), job.name


def test_no_context_is_learned_and_evaluated(tmp_path):
    """Prevents scores on questions whose context was in training, and ids that stand for two."""
    contexts = [f"Here is number {number}." for number in (*range(40), *range(20))]
    articles = [
        {
            "title": "",
            "paragraphs": [
                {
                    "context": text,
                    "qas": [
                        {
                            "id": "0",
                            "question": "Where?",
                            "answers": [{"text": "Here", "answer_start": 0}],
                        }
                    ],
                }
            ],
        }
        for text in contexts
    ]
    source = tmp_path / "questions.json"
    source.write_text(json.dumps({"version": "1.1", "data": articles}))
    module = DIVIDING["examples/evidence_questions.py"]
    words = [str(tmp_path / "of"), "--questions", str(source)]
    options = parse(module["COMMAND"].flags, words, takes_training_flags=False)
    module["COMMAND"].run(options)
    train, dev = (read_squad(tmp_path / "of" / f"{side}.json") for side in ("train", "dev"))
    assert len(train) + len(dev) == len(contexts)
    assert len(dev)
    assert not set(train.contexts) & set(dev.contexts)
    assert not set(train.ids) & set(dev.ids)


def test_a_file_that_holds_no_questions_is_one_line(tmp_path, capsys):
    """Prevents a traceback, or half of a data set, where the wrong file was named."""
    (tmp_path / "words.json").write_text('{"data": 3}')
    words = [str(tmp_path / "of"), "--questions", str(tmp_path / "words.json")]
    assert run_command(DIVIDING["examples/evidence_questions.py"]["COMMAND"], words) == 2
    assert "'data' is int, not a list" in capsys.readouterr().err
    assert not (tmp_path / "of").exists()


def test_students_answer_with_and_without_the_same_teacher(tmp_path, evidence):
    """Prevents a comparison of (D) in which more than the teacher differs."""
    at = evidence.Places(tmp_path, "minilm", tmp_path / "data", tmp_path / "results" / "minilm")
    tiny.folder(at.teacher, tiny.bert(1), tiny.wordpiece(["one", "two"]))
    for data in evidence.QUESTIONS:
        saved = at.answers(data) / "models" / identify(str(at.teacher)).key / "squad"
        (saved / "0a1b2c3d" / "seed-11").mkdir(parents=True)
    asked = {}
    for job in evidence.students_answering(at):
        options = parsed(job.words)
        asked[job.name] = {**options.values, **options.training}
    assert len(asked) == 2 * len(evidence.QUESTIONS) * len(evidence.SEEDS)
    for data in evidence.QUESTIONS:
        for seed in evidence.SEEDS:
            plain, distilled = asked[f"{data}-plain-{seed}"], asked[f"{data}-distil-{seed}"]
            assert plain["seeds"] == [int(seed)]
            assert f"seed-{seed}" in plain["model"][0]
            assert distilled.pop("teacher").startswith(str(at.answers(data)))
            plain.pop("teacher")
            assert distilled == plain


@pytest.mark.parametrize(
    ("gain", "lead", "verdict"),
    [(20.0, 40.0, "told"), (0.0, 40.0, "can't be told"), (20.0, -10.0, "can't be told")],
)
def test_what_is_told_of_answers_follows_the_plan(
    tmp_path, evidence, monkeypatch, gain, lead, verdict
):
    """Prevents a gain that is told by a rule that was not written down, or found in noise."""
    at = evidence.Places(tmp_path, "minilm", tmp_path / "data", tmp_path / "results" / "minilm")
    teacher = made_results.model("minilm-teacher", "aaaaaaaa")
    of = {str(at.teacher): teacher}
    for number, seed in enumerate(evidence.SEEDS):
        one = replace(made_results.student(), digest=f"{number}" * 8)
        of[str(at.student(evidence.FULL, seed))] = one
    monkeypatch.setattr(evidence, "identify", of.__getitem__)
    method = made_results.distilled_from(teacher)
    draws = np.random.default_rng(0)

    def save(root, model, seed, mean, given):
        f1 = np.clip((mean + draws.normal(0, 5, 400)) / 100, 0, 1)
        said = made_results.answers(["a"] * 400, f1, f1, [0.0] * 400)
        score = float(f1.mean())
        scores = {"validation": {"exact_match": score, "f1": score}}
        training = {"training": {"group": "a" * 16, "seed": int(seed)}} if model != teacher else {}
        made = made_results.result(
            model, "squad", int(seed), score, scores, given,
            provenance={**made_results.PROVENANCE, **training},
        )  # fmt: skip
        publish(root, made, said)

    for data in evidence.QUESTIONS:
        root = at.answers(data)
        save(root, teacher, 11, 30 + lead, made_results.settings("squad"))
        for seed in evidence.SEEDS:
            student = of[str(at.student(evidence.FULL, seed))]
            save(root, student, seed, 30, made_results.settings("squad"))
            save(root, student, seed, 30 + gain, made_results.settings("squad", method=method))
    told = list(evidence.told_of_answers(at))
    assert len(told) == len(evidence.QUESTIONS)
    assert all(line.endswith(f": {verdict}") for line in told), told
    assert all(re.search(r"\(D\) adds [+-]\d+\.\d ±\d+\.\d\*?, p", line) for line in told), told
