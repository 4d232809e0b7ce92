"""The commands of the study that results/README.md tells of: each is one that can be typed."""

import runpy

import pytest
from example_scripts import example_module
from places import ROOT

from angels_share.flags import parse
from distil_trainer.cli import PRETRAIN
from eval_harness.commands import glue, probe, squad

COMMANDS = {
    "run_pretrain_distill.py": PRETRAIN,
    "run_glue.py": glue.COMMAND,
    "run_squad_distill.py": squad.COMMAND,
    "eval_harness": probe.COMMAND,
    "examples/evidence_text.py": runpy.run_path(str(ROOT / "examples" / "evidence_text.py"))[
        "COMMAND"
    ],
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


def test_students_answer_with_and_without_the_same_teacher(tmp_path, evidence):
    """Prevents a comparison of (D) in which more than the teacher differs."""
    at = evidence.Places(tmp_path, "minilm", tmp_path / "data", tmp_path / "results" / "minilm")
    for data in evidence.QUESTIONS:
        (at.answers(data) / "models" / "teacher" / "squad" / "0a" / "seed-11").mkdir(parents=True)
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
