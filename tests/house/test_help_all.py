"""`--help_all` is true: it lists what a run takes, with the defaults in force there."""

import dataclasses
import re
from itertools import pairwise

import pytest
from transformers import TrainingArguments

from angels_share.cli import help_text
from angels_share.errors import UserError
from angels_share.training_flags import REFUSED, training_flags
from distil_trainer.cli import PRETRAIN
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.honoured import REFUSED as REFUSED_WITH_A_TEACHER
from distil_trainer.training.honoured import check_fields, check_fields_for
from eval_harness.commands import glue, squad
from eval_harness.commands.shared_flags import NOT_WITH_A_TEACHER
from eval_harness.runs.settings import EVAL_BATCH, FINE_TUNING, check_overrides
from eval_harness.tasks.lookup import task_named
from eval_harness.training.fine_tuner import _arguments

COMMANDS = {each.name: each for each in (PRETRAIN, glue.COMMAND, squad.COMMAND)}
SECTIONS = {
    "Flags of transformers' TrainingArguments:": "taken",
    "Accepted, but of no effect here:": "no effect",
    "Not accepted:": "refused",
}
# Words that mean another value than the default in force, where type and default don't give one.
ANOTHER = {
    "train_sampling_strategy": "sequential",
    "logging_nan_inf_filter": "True",
    "remove_unused_columns": "True",
    "report_to": "tensorboard",
}
OF_A_TYPE = {bool: "True", int: "3", float: "0.125", str: "x"}


def listed(name):
    """The text of each flag of TrainingArguments, by the section that it stands in."""
    found = {section: {} for section in SECTIONS.values()}
    for block in help_text(COMMANDS[name], everything=True).split("\n\n"):
        title, *lines = block.split("\n")
        if title not in SECTIONS:
            continue
        texts = found[SECTIONS[title]]
        for before, line in pairwise(["", *lines]):
            text = line
            if line.startswith("  --"):
                left, _, text = line[2:].partition("  ")
                names = re.findall(r"--(\w+)", left)
                flags = [*flags, *names] if before.endswith(",") else names  # noqa: F821
            for flag in flags:
                texts[flag] = f"{texts.get(flag, '')} {text.strip()}".strip()
    return found


def another_value(flag):
    """A word that means another value than the flag's default."""
    if flag.name in ANOTHER:
        return ANOTHER[flag.name]
    if flag.choices:
        return next(each for each in flag.choices if repr(each) != flag.default)
    if flag.default == "True":
        return "False"
    return '{"power": 2}' if dict in flag.accepts else OF_A_TYPE[flag.kind]


def default_of(field):
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default


def refusal_of(name, flag):
    """What the command line, or what a run checks then, says against a flag; "" if nothing."""
    required = [each.name for each in COMMANDS[name].flags if each.required]
    words = [word for each in required for word in (f"--{each}", "x")]
    try:
        options = COMMANDS[name].parse([*words, f"--{flag.name}", another_value(flag)])
        if name != "run_pretrain_distill":
            check_overrides(options.training)
            return ""
        # Without __post_init__, which converts values and looks for devices.
        arguments = object.__new__(DistilTrainingArguments)
        for each in dataclasses.fields(arguments):
            setattr(arguments, each.name, options.training.get(each.name, default_of(each)))
        check_fields(arguments)
        check_fields_for("masked", arguments)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", COMMANDS)
def test_it_lists_exactly_the_flags_that_a_run_takes(name, caplog):
    """Prevents a flag that the help offers and a run refuses, and one that nobody hears of."""
    sections = listed(name)
    ours = {flag.name for flag in COMMANDS[name].flags}
    for flag in training_flags().values():
        if flag.name in ours:
            continue
        caplog.clear()
        refusal = refusal_of(name, flag)
        where = [section for section, texts in sections.items() if flag.name in texts]
        assert len(where) == 1, flag.name
        assert (where == ["refused"]) == bool(refusal), flag.name
        if refusal:
            assert refusal == f"--{flag.name} is not accepted: {sections['refused'][flag.name]}"
            assert "or the harness sets it itself" not in refusal, "say what to use instead"
        # What the Trainer itself does with it can be told only by what it says.
        says_so = "has no effect here" in caplog.text or flag.name == "do_eval"
        assert (where == ["no effect"]) == (says_so and not refusal), flag.name
    assert set().union(*sections.values()) == {*training_flags(), *REFUSED} - ours
    assert all(text for texts in sections.values() for text in texts.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_written_for_people(name):
    """Prevents argparse's doubled percent signs, pointers into source, and lines that wrap."""
    text = help_text(COMMANDS[name], everything=True)
    for strange in ("%%", "See `", "default_optim", "True]False"):
        assert strange not in text
    assert max(map(len, text.partition("\nFlags:")[2].splitlines())) <= 99


def check_defaults(name, default_in_force, *, but=()):
    for flag, text in listed(name)["taken"].items():
        value = dict(but).get(flag, default_in_force(flag))
        value = getattr(value, "value", value)
        if value is None or value is False or value in ([], {}, ""):
            theirs = training_flags()[flag].help.rstrip(".")
            assert not text.endswith("]") or theirs.endswith("]"), (flag, text)
        else:
            assert text.endswith(f" [{value}]"), (flag, value, text)


def test_the_defaults_of_pre_training_are_those_in_force():
    """Prevents a help text with the learning rate of another script."""
    fields = {field.name: field for field in dataclasses.fields(DistilTrainingArguments)}
    check_defaults("run_pretrain_distill", lambda flag: default_of(fields[flag]))


@pytest.mark.parametrize(
    ("name", "task", "but"),
    [
        (
            "run_glue",
            "rte",
            {
                "per_device_train_batch_size": "32; IMDb 16; perplexity 8",
                "learning_rate": "3e-05; perplexity 5e-05",
                "train_sampling_strategy": "group_by_length; perplexity random",
            },
        ),
        ("run_squad_distill", "squad", {}),
    ],
)
def test_the_defaults_of_fine_tuning_are_those_in_force(name, task, but, tmp_path, monkeypatch):
    """Prevents a help text with transformers' 5e-5 where a run uses 3e-5."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    values = {**FINE_TUNING, **task_named(task).fine_tuning}
    made = TrainingArguments(**_arguments(values, 1000, 1, tmp_path))
    assert (made.use_cpu, made.dataloader_pin_memory) == (True, False)
    depending = {
        "logging_steps": "a twentieth of a run",
        "report_to": "none",
        "use_cpu": "True without a GPU",
        "dataloader_pin_memory": "True with CUDA",
        "per_device_eval_batch_size": EVAL_BATCH,  # evaluation is no Trainer's
    }
    check_defaults(name, lambda flag: getattr(made, flag), but={**depending, **but})
    assert task_named("imdb").fine_tuning["per_device_train_batch_size"] == 16


@pytest.mark.parametrize("name", ["run_glue", "run_squad_distill"])
def test_what_a_teacher_excludes_is_refused_beforehand(name):
    """Prevents hours of fine-tuning a teacher before its students refuse a flag."""
    taken = listed(name)["taken"].keys() - {"optim"}  # refused for some optimizers only
    excluded = taken & REFUSED_WITH_A_TEACHER.keys()
    assert excluded <= NOT_WITH_A_TEACHER.keys() <= REFUSED_WITH_A_TEACHER.keys()
    for flag in excluded:
        assert "not with --teacher" in listed(name)["taken"][flag]
        words = ["--model", "x", f"--{flag}", another_value(training_flags()[flag])]
        experiment = {"run_glue": glue.experiment, "run_squad_distill": squad.experiment}[name]
        experiment(COMMANDS[name].parse(words))
        with pytest.raises(UserError, match=f"--{flag} is not accepted with --teacher: "):
            experiment(COMMANDS[name].parse([*words, "--teacher", "y"]))
