"""Reading flags: the command line, `--config` files, and TrainingArguments' own flags."""

import dataclasses

import pytest
import torch
import yaml

from angels_share.cli import Command, run_command, without_secrets
from angels_share.config import typed
from angels_share.errors import RunFailed, UserError
from angels_share.flags import Flag, above_zero, is_fraction, not_negative, parse
from angels_share.training_flags import REFUSED, training_flags

FLAGS = (
    Flag("alpha_ce", "a weight", float, 5.0, check=not_negative),
    Flag("layers", "some numbers", int, many=True),
    Flag("freeze", "a switch", bool),
    Flag("fold", "a switch that is on", bool, default=True),
    Flag("scope", "a choice", default="example", choices=("example", "batch")),
    Flag("name", "a text", alias="name_or_path"),
    Flag("resume", "a text or nothing", bare="latest"),
)


def read(*words, flags=FLAGS, training=True):
    return parse(flags, words, takes_training_flags=training)


def test_defaults_and_given_values():
    """Prevents a default from passing for the user's choice, which presets may not override."""
    options = read("--alpha-ce", "0.5", "--layers", "0", "2", "--freeze", "--fold", "False")
    assert (options.alpha_ce, options.layers, options.freeze) == (0.5, [0, 2], True)
    assert (options.fold, options.scope, options.name) == (False, "example", None)
    assert options.given == {"alpha_ce", "layers", "freeze", "fold"}


@pytest.mark.parametrize(
    ("words", "value"),
    [(["--resume"], "latest"), (["--resume", "x/checkpoint-3"], "x/checkpoint-3"), ([], None)],
)
def test_a_flag_that_may_stand_alone(words, value):
    """Prevents `--resume_from_checkpoint` from demanding the path that it could find itself."""
    assert read(*words).resume == value


def test_an_alias_fills_the_same_flag():
    """Prevents two values for one thing."""
    assert read("--name_or_path", "bert").name == "bert"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--alpha_ce", "-1"], "--alpha_ce -1.0: must be 0 or more"),
        (["--alpha_ce", "much"], "invalid float value: 'much'"),
        (["--layers", "1.5"], "invalid int value: '1.5'"),
        (["--scope", "bach"], "did you mean 'batch'?"),
        (["--freeze", "perhaps"], "neither true nor false"),
        (["--alpha"], "did you mean --alpha_ce?"),
        (["stray"], "unexpected argument 'stray'"),
        (["--hub_token", "hf_x"], "--hub_token is not accepted"),
        (["--learning_rate", "fast"], "invalid float value"),
        (["--max_step", "3"], "did you mean --max_steps?"),
        (["--layers", "1" + "0" * 400], "…: an integer of more than 64 bits"),
        (
            ["--max_steps", "1" + "0" * 30],
            "--max_steps 1000000000000000000000000000000: an integer of",
        ),
    ],
)
def test_mistakes_name_the_flag_and_what_is_right(words, said):
    """Prevents a mistyped flag from being ignored, and a message that doesn't say which one."""
    with pytest.raises(UserError) as error:
        read(*words)
    assert said in str(error.value)
    assert "hf_x" not in str(error.value)


def test_a_required_flag_is_asked_for():
    """Prevents a None that is only noticed later."""
    with pytest.raises(UserError, match="--teacher is missing: who to learn from"):
        read(flags=(Flag("teacher", "who to learn from", required=True),))


def test_checks():
    """Prevents a check that lets its own edge pass."""
    assert above_zero(0)
    assert above_zero(0.1) is None
    assert not_negative(-0.1)
    assert not_negative(0) is None
    assert is_fraction(1.01)
    assert is_fraction(1) is None


def test_training_flags_pass_through_with_their_types():
    """Prevents a number that reaches TrainingArguments as text, which it would not notice."""
    options = read(
        "--learning_rate", "3e-5", "--max_steps", "7", "--bf16", "--tf32", "false",
        "--report_to", "tensorboard", "wandb", "--warmup_steps", "0.05",
        "--no_dataloader_pin_memory", "--lr_scheduler_kwargs", '{"power": 2}',
    )  # fmt: skip
    assert options.training == {
        "learning_rate": 3e-5,
        "max_steps": 7,
        "bf16": True,
        "tf32": False,
        "report_to": ["tensorboard", "wandb"],
        "warmup_steps": 0.05,
        "dataloader_pin_memory": False,
        "lr_scheduler_kwargs": '{"power": 2}',
    }
    with pytest.raises(UserError, match="unknown flag --max_steps"):
        read("--max_steps", "7", training=False)


def test_training_flags_are_those_of_the_installed_class():
    """Prevents a flag of TrainingArguments that we don't know because its source has changed."""
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert set(training_flags()) == fields - set(REFUSED)
    assert training_flags()["learning_rate"].accepts == (float,)
    assert training_flags()["save_total_limit"].optional
    assert "learning rate" in training_flags()["learning_rate"].help


GOOD = "alpha_ce: 0.5\nlearning_rate: 0.0001\nbf16: true\nlayers: [0, 2]\nname: bert\n"


def test_a_config_file_is_read(tmp_path):
    """Prevents a file and the command line from meaning different things."""
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    options = read("--config", str(path), "--alpha_ce", "2")
    assert (options.alpha_ce, options.layers, options.name) == (2.0, [0, 2], "bert")
    assert options.training == {"learning_rate": 0.0001, "bf16": True}
    assert "layers" in options.given


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.yaml", "learning_rate: 1e-4", "'1e-4' is a string, expected a number (write 0.0001)"),
        ("c.yaml", "learning_rate: 1e-13", "expected a number (write 1.0e-13)"),
        ("c.yaml", "learning_rate: 2.5e6", "expected a number (write 2500000)"),
        ("c.yaml", "max_steps: 1e3", "expected an integer (write 1000)"),
        ("c.yaml", "? [alpha_ce]\n: 1", "c.yaml: key ['alpha_ce'] is not a name"),
        ("c.yaml", "lr: 0.1", "unknown key 'lr'"),
        ("c.yaml", "alpha_cee: 1", "did you mean 'alpha_ce'?"),
        ("c.yaml", "alpha_ce: 1\nalpha_ce: 2", "key 'alpha_ce' appears twice"),
        ("c.json", '{"alpha_ce": 1, "alpha_ce": 2}', "key 'alpha_ce' appears twice"),
        ("c.yaml", "name: x\nname_or_path: y", "are the same setting"),
        ("c.yaml", "alpha_ce: true", "alpha_ce: True is a boolean, expected a number"),
        ("c.yaml", "freeze: 1", "freeze: 1 is an integer, expected a boolean"),
        ("c.yaml", "layers: [0, x]", "--layers 'x': expected int"),
        ("c.yaml", "max_steps: 1.5", "max_steps: 1.5 is a number, expected an integer"),
        ("c.yaml", "alpha_ce: -1", "--alpha_ce -1: must be 0 or more"),
        ("c.yaml", "scope: all", "expected one of example, batch"),
        ("c.yaml", "hub_token: hf_x", "hub_token is not accepted"),
        ("c.yaml", "- a\n- b", "expected lines of `key: value`"),
        ("c.yaml", "a: [1", "c.yaml"),
        ("c.json", "{", "c.json:1: not JSON"),
        ("missing.yaml", None, "No such file"),
        ("c.yaml", "- &a [x, x]\n- [*a, *a, *a]", "c.yaml:2: *a is an alias: write its value out"),
        ("c.yaml", "layers: &a\n- *a", "c.yaml:2: *a is an alias"),
        ("c.yaml", "layers:\n" + "[" * 500, "c.yaml:2: nested more than 20 deep"),
        ("c.json", '{"layers":\n' + "[" * 30_000, "c.json:2: is nested too deeply"),
        ("c.yaml", f"layers:\n- {'9' * 5000}", "… is not a valid int"),
        ("c.yaml", f"alpha_ce: 0x{'f' * 5000}", "c.yaml:1: an integer of thousands of di"),
        ("c.yaml", f"alpha_ce: 1{'0' * 400}", "…: an integer of more than 64 bits"),
        ("c.yaml", f"x: [1{'0' * 400}]", "…: an integer of more than 64 bits"),
        ("c.json", f'{{"alpha_ce": 1{"0" * 400}}}', "…: an integer of more than 64 bits"),
        ("c.json", f'{{"alpha_ce":\n1{"0" * 5000}}}', "c.json:2: has a number of 5001 digits"),
        ("c.yaml", "name: a\nalpha_ce: 2001-13-01", "c.yaml:2: '2001-13-01' is not a valid timest"),
        ("c.yaml", "freeze: !!bool maybe", "c.yaml:1: 'maybe' is not a valid bool"),
        ("c.yaml", "#" * 70_000, "c.yaml: more than 64 KiB; is it a file of settings?"),
        ("c.yaml", "max_steps: " + "v" * 60_000, "… is a string, expected an integer"),
    ],
)  # fmt: skip
def test_mistakes_in_a_config_file(tmp_path, name, text, said):
    """Fault 15: prevents a run with a setting other than the one that the file means."""
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as error:
        read("--config", str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["1e-13", "1e-4", "2.5e6", "1e300", "-3e-7", "7"])
def test_the_hint_is_the_number_that_was_meant(text):
    """Prevents a hint that YAML reads as text again, or as another number (1e-13 as 0)."""
    with pytest.raises(UserError) as error:
        typed(text, training_flags()["learning_rate"], "c.yaml: learning_rate")
    hint = str(error.value).partition("(write ")[2].rstrip(")")
    assert yaml.safe_load(hint) == float(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [("max_steps", "1.5"), ("learning_rate", "nan"), ("learning_rate", "1e999"),
     ("learning_rate", "fast")],
)  # fmt: skip
def test_no_hint_where_nothing_can_be_meant(name, text):
    """Prevents advice that is refused in turn."""
    with pytest.raises(UserError) as error:
        typed(text, training_flags()[name], name)
    assert "write" not in str(error.value)


class Broken(torch.utils.data.Dataset):
    """Fails in a worker with a given error and cause."""

    def __init__(self, error, cause):
        self._error, self._cause = error, cause

    def __len__(self):
        return 1

    def __getitem__(self, _):
        raise self._error from self._cause


@pytest.mark.parametrize("cause", [None, ValueError("what was behind it")])
@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("corpus: no text: give more"), 2, "corpus: no text: give more\n"),
        (RunFailed("it ended: early"), 1, "it ended: early\n"),
        (TypeError("no such: thing"), 1, "failed: TypeError: no such: thing (at "),
        (TypeError(), 1, "failed: TypeError (at "),
    ],
)
def test_a_workers_error_is_one_line_like_any_other(error, cause, status, line, capsys):
    """Prevents a worker's whole traceback from becoming one line of a thousand characters."""
    batches = iter(torch.utils.data.DataLoader(Broken(error, cause), num_workers=1))
    command = Command("a_command", "loads", (), lambda _: list(batches), ())
    assert run_command(command, []) == status
    # Left to the garbage collection, which breaks its queue first, it waits 5 s for its worker.
    batches._shutdown_workers()
    said = capsys.readouterr().err
    assert said.startswith(f"a_command: {line}")
    assert len(said) < 150


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("WANDB_API_KEY", True),
        ("HF_TOKEN", True),
        ("PGPASSWORD", True),
        ("GITHUB_PAT", True),
        ("HF_TOKEN_PATH", False),
        ("PWD", False),
    ],
)
def test_secrets_are_known_by_their_names(name, is_secret, monkeypatch):
    """Fault 17: prevents a cloud's key in a log, and a path from becoming unreadable."""
    monkeypatch.setenv(name, "/x/averysecretthing")
    shown = without_secrets("seen: /x/averysecretthing")
    assert shown == ("seen: ***" if is_secret else "seen: /x/averysecretthing")
