"""The command line: instant help, one line for a mistake, the right exit status."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from places import PAPER, ROOT

from angels_share import __version__
from angels_share.cli import Command, help_text, run_command, without_secrets
from angels_share.errors import RunFailed, UserError
from angels_share.flags import Flag
from angels_share.training_flags import SYNONYMS, training_flags
from distil_trainer.cli import PRETRAIN
from distil_trainer.cli import PROGRAM as DISTIL_TRAINER
from eval_harness.cli import PROGRAM, command

OUR_COMMANDS = {
    each.name: each
    for each in (
        PRETRAIN,
        *map(DISTIL_TRAINER.command, DISTIL_TRAINER.commands),
        *map(command, ("glue", "squad", *PROGRAM.commands)),
    )
}

# Our own flags. A new one is a decision: add it here when it has been made.
EXECUTORS = (
    "executor ray_address slurm_time slurm_partition slurm_account slurm_gpus_per_node slurm_gres "
    "slurm_cpus_per_task slurm_mem slurm_constraint slurm_additional_parameters slurm_setup"
)
OUR_FLAGS = {
    "run_pretrain_distill": "teacher student student_layers num_layers student_init architecture "
    "copy_head_transform fold_token_types freeze_pos_embs tokenizer corpus output_dir corpus_dir "
    "stream_corpus text_column max_seq_length min_tokens max_unknown validation_fraction "
    "tokens_per_batch resume_from_checkpoint allow_inexact_resume alpha_ce alpha_mlm alpha_clm "
    "alpha_mse alpha_cos alpha_rel temperature divergence relation_layer relation_heads "
    "restrict_ce_to_mask mlm_probability mlm_smoothing mask_scope shard_student pretokenized "
    "preset ablation seeds push_to_hub hub_model_id hub_private_repo hub_revision",
    "distil_trainer prune": "model output_dir ffn heads width score data text_columns label_column "
    "iterations rows batch_size seed",
    "distil_trainer export": "model to quantize check text_columns label_column rows tolerance "
    "least_agreement output_dir",
    "run_glue": "model tasks teacher alpha_ce alpha_task temperature transfer_set data_dir "
    "data_revision max_seq_length context stride eval_only predict_test no_teacher_cache num_seeds "
    "seeds results_dir rerun dry_run limit workers threads choose save_models push_to_hub "
    f"hub_model_id hub_private_repo hub_revision {EXECUTORS}",
    "run_squad_distill": "model teacher alpha_ce alpha_squad temperature kd_over_all_positions "
    "train_file validation_file data_revision version_2_with_negative max_seq_length doc_stride "
    "max_query_length n_best_size max_answer_length null_score_diff_threshold pad_to_max_length "
    "eval_only no_teacher_cache num_seeds seeds results_dir rerun dry_run limit workers threads "
    f"choose save_models push_to_hub hub_model_id hub_private_repo hub_revision {EXECUTORS}",
    "eval_harness tables": "results_dir format verify",
    "eval_harness report": "results_dir students",
    "eval_harness compare": "models tasks results_dir format chart",
    "eval_harness probe": "model teacher text pairs tasks data_dir limit max_seq_length seed "
    "batch_size device format results_dir rerun",
    "eval_harness lineage": "models labels tasks results_dir format",
    "eval_harness speed": "model backend random_weights synthetic data_dir data_revision "
    "max_seq_length pairs full repeats threads batch_sizes device bf16 results_dir",
    "eval_harness tasks": "",
    "eval_harness fetch": "model tasks corpus data_revision dry_run",
    "eval_harness withhold": "results_dir",
    "eval_harness push": "folder repo_id private revision results results_dir dry_run",
    "eval_harness page": "model output_dir name examples text_columns limit serve port",
    "eval_harness demo": "folder seed",
}

WITHOUT_TORCH = """
import sys
from angels_share import start
sys.argv = {argv!r}
status = start.{program}()
heavy = {{"torch", "transformers", "datasets", "sklearn", "scipy", "pandas",
          "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_our_flags_are_frozen(name):
    """Prevents a flag that slips in, or one that people's scripts use from slipping out."""
    assert {flag.name for flag in OUR_COMMANDS[name].flags} == set(OUR_FLAGS[name].split())


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_every_flag_and_example_is_explained(name):
    """Prevents a help text without defaults, or an example that its own command refuses."""
    text = help_text(OUR_COMMANDS[name])
    for flag in OUR_COMMANDS[name].flags:
        assert f"--{flag.name}" in text
        assert flag.help
    assert all(name.split()[-1] in example for example in OUR_COMMANDS[name].examples)


@pytest.mark.parametrize(
    ("program", "words", "status", "said"),
    [
        ("run_glue", ["--help"], 0, "--num_seeds"),
        ("run_glue", ["--help_all"], 0, "--warmup_steps"),
        ("run_glue", ["--modle", "bert"], 2, "did you mean --model?"),
        ("run_glue", ["--model", "bert", "--learnin_rate", "1"], 2, "--learning_rate?"),
        ("run_glue", ["--model", "bert", "--tasks", "rtee"], 2, "did you mean 'rte'?"),
        ("run_glue", ["--model", "distlbert"], 2, "did you mean 'distilbert'?"),
        ("run_glue", ["--model", "bert", "--optim", "adamw_torhc"], 2, "'adamw_torch'?"),
        ("run_glue", ["--model", "bert", "--lr_scheduler_type", "linaer"], 2, "'linear'?"),
        ("run_squad_distill", ["--help"], 0, "--alpha_squad"),
        ("run_squad_distill", ["--model", "robberta"], 2, "did you mean 'roberta'?"),
        ("run_squad_distill", ["--tempreature", "2"], 2, "did you mean --temperature?"),
        ("run_pretrain_distill", ["--help"], 0, "--restrict_ce_to_mask"),
        ("run_pretrain_distill", ["--teecher", "bert"], 2, "did you mean --teacher?"),
        (
            "run_pretrain_distill",
            ["--teacher", "gtp2", "--corpus", "x.txt", "--output_dir", "out"],
            2,
            "did you mean 'gpt2'?",
        ),
        ("eval_harness", ["--help"], 0, "tables"),
        ("eval_harness", ["tabels"], 2, "did you mean 'tables'?"),
        ("eval_harness", ["tables", "--result_dir", "x"], 2, "did you mean --results_dir?"),
    ],
)
def test_answers_before_torch_is_imported(run_script, program, words, status, said):
    """Prevents a command that makes people wait seconds to hear that they mistyped a flag."""
    code = WITHOUT_TORCH.format(program=program, argv=[program, *words])
    ended = run_script("-c", code)
    assert ended.returncode == status, ended.stderr
    assert said in (ended.stdout if status == 0 else ended.stderr)
    if status:
        assert ended.stderr.count("\n") == 1
        assert "Traceback" not in ended.stderr


OF_OTHER_SCRIPTS = {
    "run_glue": {
        "max_train_samples": "limit", "max_eval_samples": "limit", "max_predict_samples": "limit",
        "output_dir": "results_dir", "do_train": "drop it", "do_eval": "drop it",
        "do_predict": "predict_test", "dataset_name": "tasks", "overwrite_output_dir": "rerun",
        "per_gpu_train_batch_size": "per_device_train_batch_size", "fp16": "bf16",
        "seed": "seeds", "epochs": "num_train_epochs", "lr": "learning_rate",
        "batch_size": "per_device_train_batch_size", "train_file": "data_dir",
        "warmup_ratio": "warmup_steps", "no_cuda": "use_cpu", "alpha_squad": "alpha_task",
    },
    "run_squad_distill": {
        "max_train_samples": "limit", "output_dir": "results_dir", "fp16": "bf16",
        "data_dir": "train_file and --validation_file", "dataset_name": "train_file",
        "predict_file": "validation_file", "teacher_name_or_path": "teacher",
        "label_smoothing_factor": "answer spans", "lr": "learning_rate", "do_predict": "drop it",
    },
    "run_pretrain_distill": {
        "model": "teacher", "data_dir": "corpus", "train_file": "corpus", "data_file": "corpus",
        "results_dir": "output_dir", "lr": "learning_rate", "n_epoch": "num_train_epochs",
        "max_train_samples": "max_steps", "fp16": "bf16", "mlm": "drop it",
        "teacher_name": "teacher", "overwrite_output_dir": "output_dir",
    },
    "eval_harness tables": {"output_dir": "results_dir"},
    "eval_harness speed": {"output_dir": "results_dir"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "flag"), [(name, flag) for name, flags in OF_OTHER_SCRIPTS.items() for flag in flags]
)
def test_the_flags_of_other_scripts_are_known(name, flag, tmp_path):
    """Prevents a habit from another script from ending in a guess at what was meant."""
    use = OF_OTHER_SCRIPTS[name][flag]
    config = tmp_path / "run.json"
    config.write_text(json.dumps({flag: "x"}))
    for words in ([f"--{flag}", "x"], [f"--{flag}"], ["--config", str(config)]):
        with pytest.raises(UserError, match=f"{flag} is not accepted: .*{use}"):
            OUR_COMMANDS[name].parse(words)


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_what_is_to_be_used_instead_is_there(name):
    """Prevents advice that the same command refuses in turn, and advice about a flag that is."""
    command = OUR_COMMANDS[name]
    ours = {flag.name for flag in command.flags}
    theirs = training_flags() if command.training else ()
    taken = {flag for flag in theirs if command.refusal(flag) is None}
    assert not ours & command.instead.keys()
    for flag in {*command.instead, *SYNONYMS}:
        if flag in ours or flag in taken:
            continue
        advice = command.refusal(flag) or ""
        if advice.startswith("use --"):
            assert advice.removeprefix("use --").split()[0].rstrip(",:;") in ours | taken, flag


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learning_rat", "1"], "did you mean --learning_rate?"),
        (["--lim", "5"], "did you mean --limit?"),
        (["--data_sed", "x"], "; --help lists the flags"),
        (["--fp61"], "; --help lists the flags"),
        (["--no_remove_unused_columns"], "is not accepted: "),
    ],
)
def test_advice_is_never_a_flag_that_is_refused(words, said):
    """Prevents "did you mean --data_seed?" for --data_dir: another thing, and refused as well."""
    with pytest.raises(UserError) as error:
        OUR_COMMANDS["run_squad_distill"].parse(["--model", "x", *words])
    assert str(error.value).startswith(("unknown flag ", words[0]))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["glue"], 2, "eval_harness: glue is a script of its own: python run_glue.py --help"),
        (["squad"], 2, "python run_squad_distill.py"),
        (["pretrain"], 2, "python run_pretrain_distill.py"),
        (["run_glue.py"], 2, "python run_glue.py"),
        (["tabels"], 2, "eval_harness: unknown command 'tabels'; did you mean 'tables'?\n"),
        (["nothing"], 2, "unknown command 'nothing'; commands: tables, report, "),
        (["-h"], 0, "python -m eval_harness COMMAND [flags]"),
        (["--help_all"], 0, "--batch_sizes"),
        (["--version"], 0, f"angels-share {__version__}\n"),
        (["tables", "--version"], 0, f"angels-share {__version__}\n"),
    ],
)
def test_the_first_words_after_eval_harness(words, status, said, capsys):
    """Prevents a first try that ends in a list of what it isn't."""
    assert PROGRAM.run(words) == status
    printed = capsys.readouterr()
    assert said in (printed.err if status else printed.out)
    assert printed.err.count("\n") == (1 if status else 0)


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_every_command_says_its_version(name, capsys):
    """Prevents a report of a fault that can't say which version it is about."""
    assert run_command(OUR_COMMANDS[name], ["--version"]) == 0
    assert capsys.readouterr().out == f"angels-share {__version__}\n"


def test_the_scripts_at_the_root_find_their_commands(run_script):
    """Prevents a script that no longer finds its entry point."""
    for script in ("run_glue.py", "run_squad_distill.py", "run_pretrain_distill.py"):
        assert run_script(script, "--help").stdout.startswith(script.removesuffix(".py"))


def command_that(outcome):
    def run(options):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return Command("a_command", "does one thing", (), run, ())


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (0, 0, ""),
        (UserError("no such thing: take another"), 2, "a_command: no such thing: take another\n"),
        (RunFailed("it ended early"), 1, "a_command: it ended early\n"),
        (KeyError("x"), 1, "failed: KeyError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 1, "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "out/x"), 2, "out/x: that file system is"),
        (PermissionError(errno.EACCES, "Permission denied", "out/x"), 2, "out/x: no permission"),
    ],
)
def test_outcomes_become_one_line_and_a_status(outcome, status, said, capsys):
    """Prevents a bare traceback, and a failure that ends with status 0."""
    assert run_command(command_that(outcome), []) == status
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == (1 if status else 0)


TERMINATED_IN_A_DRAFT = """
import os, signal, sys
from angels_share.cli import Command, run_command
from angels_share.files import replacing
def run(options):
    with replacing(sys.argv[1]) as draft:
        draft.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(run_command(Command("a_command", "", (), run, ()), []))
"""


def test_sigterm_ends_as_an_interruption_does(run_script, tmp_path):
    """Fault 7: prevents drafts and children that a scheduler's signal leaves behind."""
    ended = run_script("-c", TERMINATED_IN_A_DRAFT, str(tmp_path / "file"))
    assert ended.returncode == 143
    assert ended.stderr == "a_command: terminated; completed work is saved\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("before", [signal.SIG_IGN, lambda *_: None])
def test_who_handles_sigterm_already_goes_on_to(before):
    """Prevents an end that somebody has forbidden, and a handler that is lost for good."""
    default = signal.signal(signal.SIGTERM, before)

    def run(options):
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    try:
        assert run_command(Command("a_command", "", (), run, ()), []) == 0
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, default)


def test_the_traceback_is_there_for_who_asks(monkeypatch, capsys):
    """Prevents a failure of ours that nobody can look into."""
    monkeypatch.setenv("ANGELS_SHARE_TRACEBACK", "1")
    assert run_command(command_that(KeyError("x")), []) == 1
    assert "Traceback" in capsys.readouterr().err


def test_no_token_is_ever_printed(monkeypatch, capsys):
    """Fault 17: prevents a token in the environment from ending in a log or a traceback."""
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettoken")
    monkeypatch.setenv("ANGELS_SHARE_TRACEBACK", "1")
    run_command(command_that(ValueError("401 for Bearer hf_averysecrettoken")), [])
    run_command(command_that(UserError("no access with hf_averysecrettoken")), [])
    assert "hf_averysecrettoken" not in capsys.readouterr().err
    assert without_secrets("x hf_averysecrettoken y") == "x *** y"


@pytest.mark.parametrize("make", ["a file", "below a file"])
def test_an_output_path_that_is_no_folder(tmp_path, capsys, make):
    """Fault 13: prevents hours of work that end in a path that can't be written."""
    taken = tmp_path / "taken"
    taken.write_text("")
    path = taken if make == "a file" else taken / "below"
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    status = run_command(command("glue"), ["--model", str(model), "--results_dir", str(path)])
    said = capsys.readouterr().err
    assert status == 2
    assert str(path) in said
    assert "choose another path" in said
    assert taken.read_text() == ""


def test_all_weights_zero_and_a_bad_temperature(tmp_path, capsys):
    """Fault 15: prevents a run that could learn nothing from starting at all."""
    words = ["--teacher", "bert", "--corpus", "x.txt", "--output_dir", str(tmp_path / "out")]
    nothing = ["--alpha_ce", "0", "--alpha_mlm", "0", "--alpha_cos", "0", "--alpha_clm", "0"]
    assert run_command(PRETRAIN, [*words, *nothing]) == 2
    assert "all weights are 0" in capsys.readouterr().err
    assert run_command(PRETRAIN, [*words, "--temperature", "0"]) == 2
    assert "--temperature 0.0: must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tables_are_written_and_are_the_same_again(tmp_path, capsys):
    """Prevents tables that depend on anything but the files they are made from."""
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "paper.json").write_text(PAPER.read_text())
    assert PROGRAM.run(["tables", "--results_dir", str(tmp_path)]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob("table*.md")}
    assert PROGRAM.run(["tables", "--results_dir", str(tmp_path)]) == 0
    assert first == {path.name: path.read_bytes() for path in tmp_path.glob("table*.md")}
    assert sorted(first) == [f"table{number}.md" for number in (1, 2, 3, 4)]
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "DistilBERT (paper)" in line)
    assert [cell.strip() for cell in row.split("|")[2:5]] == ["77.0", "51.3", "82.2"]
    assert "printed 86.7, should be 84.7" in printed


def test_a_flag_may_come_from_a_file(tmp_path):
    """Prevents `--config` from winning over the command line."""
    seen = {}

    def run(options):
        seen.update(options.values)
        return 0

    flags = (Flag("size", "", int, 1), Flag("name", ""), Flag("tasks", "", many=True))
    sizes = Command("a_command", "", flags, run, ())
    config = tmp_path / "run.json"
    config.write_text(json.dumps({"size": 2, "name": "file", "tasks": "rte"}))
    assert run_command(sizes, ["--config", str(config), "--name", "line"]) == 0
    assert seen == {"size": 2, "name": "line", "tasks": ["rte"]}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["run_glue.py", "--help"], 0),
        (["run_pretrain_distill.py", "--help_all"], 0),
        (["-m", "eval_harness"], 0),
        (["-m", "eval_harness", "--version"], 0),
        (["-m", "eval_harness", "tasks"], 141),
    ],
)
def test_output_survives_a_reader_that_stops(words, status):
    """Prevents `--help | head -1` from ending in a traceback, and work cut short in status 0."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (status, "")
