"""A run that is stopped, killed or robbed of its files ends as if nothing had happened."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
import updates
from disks import file_size_limit, fill, small_disk

from angels_share.errors import RunFailed, UserError
from distil_trainer.training import checkpoint
from distil_trainer.training.checkpoint import complaint, find_checkpoint

STEPS = 12  # two epochs of six


def trainer_in(folder, **settings):
    """A masked-LM distillation with dropout, of two epochs of six steps."""
    teacher = updates.tiny.bert(layers=2)
    arguments = {
        "student": updates.make_student(teacher, num_layers=1),
        "teacher": teacher,
        "data": updates.sequences(160, count=24),
        "max_steps": -1,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "logging_steps": 100,
    }
    return updates.trainer_for("masked", folder, **(arguments | settings))


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.student.state_dict().items()}


def assert_equal_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), f"{name} differs"


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that nobody interrupted, with a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = trainer_in(folder)
    trainer.train()
    assert trainer.state.global_step == STEPS
    return folder, weights_of(trainer)


def left_by(whole_run, folder, *steps):
    """An output folder as an earlier run left it: with some of the checkpoints."""
    for step in steps:
        shutil.copytree(whole_run[0] / f"checkpoint-{step}", folder / f"checkpoint-{step}")
    return folder


@pytest.mark.parametrize("step", range(1, STEPS))
def test_resuming_after_any_step_changes_no_bit(whole_run, tmp_path, step):
    """Fault 6: prevents masks, order, dropout or the optimizer from going on elsewhere."""
    left_by(whole_run, tmp_path, step)
    trainer = trainer_in(tmp_path, save_strategy="no")
    trainer.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(trainer), whole_run[1])


@pytest.mark.parametrize("name", updates.tiny.ARCHITECTURES)
def test_every_architecture_resumes_after_any_step(name, tmp_path):
    """Prevents a part of a model that its checkpoint lacks, or that is built anew otherwise."""
    settings = {"max_steps": 4, "per_device_train_batch_size": 4}  # of two steps an epoch
    whole = updates.trainer_of(name, tmp_path, save_strategy="steps", save_steps=1, **settings)
    whole.train()
    for step in range(1, 4):
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / f"checkpoint-{step}", folder / f"checkpoint-{step}")
        trainer = updates.trainer_of(name, folder, **settings)
        trainer.train(resume_from_checkpoint=True)
        assert trainer.state.global_step == 4
        assert_equal_bits(weights_of(trainer), weights_of(whole))
    loaded = type(whole.student).from_pretrained(tmp_path / "checkpoint-4")
    assert_equal_bits(loaded.state_dict(), weights_of(whole))


@pytest.mark.parametrize("step", [4, 6, 9])
def test_resuming_with_workers_changes_no_bit(whole_run, tmp_path, step):
    """Fault 6: prevents workers from holding state that a resumed run lacks."""
    left_by(whole_run, tmp_path, step)
    trainer = trainer_in(tmp_path, save_strategy="no", dataloader_num_workers=2)
    trainer.train(resume_from_checkpoint="latest")
    assert_equal_bits(weights_of(trainer), whole_run[1])


def test_two_processes_resumed_inside_the_second_epoch(tmp_path):
    """Fault 6: prevents the epoch from being forgotten when two processes resume."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", __file__, str(tmp_path),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    whole, resumed = (
        safetensors.torch.load_file(tmp_path / f"{name}.safetensors")
        for name in ("whole", "resumed")
    )
    assert_equal_bits(whole, resumed)


def main(folder):
    """Under torchrun: a whole run, and one resumed in the middle of its second epoch."""
    for name, step in (("whole", None), ("resumed", 5)):
        here = Path(folder) / name
        if step is not None and int(os.environ["RANK"]) == 0:
            source = Path(folder) / "whole" / f"checkpoint-{step}"
            shutil.copytree(source, here / source.name)
        if step is not None:
            torch.distributed.barrier()
        trainer = trainer_in(here, ddp_backend="gloo")
        trainer.train(resume_from_checkpoint=step is not None)
        if trainer.args.process_index == 0:
            trainer.student.save_pretrained(here / "student")
            file = here / "student" / "model.safetensors"
            shutil.copy(file, Path(folder) / f"{name}.safetensors")


# What a checkpoint may look like after something went wrong


def flip_bytes(file):
    content = bytearray(file.read_bytes())
    content[-8:-4] = bytes(255 - byte for byte in content[-8:-4])
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def nest(file):
    file.write_text("[" * 99_999)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (truncate, "model.safetensors", "bytes instead of"),
        (truncate, "optimizer.pt", "bytes instead of"),
        (truncate, "trainer_state.json", "bytes instead of"),
        (flip_bytes, "model.safetensors", "the checksum of model.safetensors is wrong"),
        (Path.unlink, "optimizer.pt", "optimizer.pt is missing"),
        (Path.unlink, "rng_state.pth", "rng_state.pth is missing"),
        (Path.unlink, "manifest.json", "has no manifest.json"),
        (truncate, "manifest.json", "manifest.json is damaged"),
        (nest, "manifest.json", "manifest.json is damaged"),
    ],
)
def test_a_spoiled_checkpoint_is_seen_before_it_is_read(
    whole_run, tmp_path, caplog, spoil, name, said
):
    """Faults 2, 3, 4: prevents a silent resume to another result; an older whole one is taken."""
    left_by(whole_run, tmp_path, 3, 5)
    spoil(tmp_path / "checkpoint-5" / name)
    with caplog.at_level(logging.WARNING):
        found = find_checkpoint(tmp_path, "latest")
    assert found.step == 3
    assert "checkpoint-5" in caplog.text
    assert said in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-3")
    with pytest.raises(UserError, match=r"no complete checkpoint: .*checkpoint-5") as error:
        find_checkpoint(tmp_path, "latest")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "name", "is_told"),
    [
        (Path.unlink, "optimizer.pt", True),
        (Path.unlink, "rng_state.pth", True),
        (Path.unlink, "model.safetensors", False),
        (Path.unlink, "manifest.json", False),
        (truncate, "optimizer.pt", False),
        (flip_bytes, "rng_state.pth", False),
    ],
)
def test_the_way_out_is_told_where_it_is_one(whole_run, tmp_path, spoil, name, is_told):
    """Prevents advice to use --allow_inexact_resume, which then ends in the same error."""
    left_by(whole_run, tmp_path, 5)
    spoil(tmp_path / "checkpoint-5" / name)
    for asked in ("latest", str(tmp_path / "checkpoint-5")):
        with pytest.raises(UserError) as error:
            find_checkpoint(tmp_path, asked)
        assert ("--allow_inexact_resume" in str(error.value)) is is_told
        if is_told:
            assert find_checkpoint(tmp_path, asked, inexact=True).step == 5


def test_the_run_goes_on_from_the_older_checkpoint_to_the_same_end(whole_run, tmp_path):
    """Fault 2: prevents a fallback that ends elsewhere."""
    left_by(whole_run, tmp_path, 3, 5)
    truncate(tmp_path / "checkpoint-5" / "optimizer.pt")
    trainer = trainer_in(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(trainer), whole_run[1])
    assert complaint(tmp_path / "checkpoint-5") is None, "the torn one was replaced by a whole one"


def test_a_checkpoint_named_by_the_user_is_not_silently_replaced(whole_run, tmp_path):
    """Prevents another checkpoint than the one that was asked for from being used."""
    left_by(whole_run, tmp_path, 3, 5)
    truncate(tmp_path / "checkpoint-5" / "model.safetensors")
    with pytest.raises(UserError, match="checkpoint-3 beside it is complete"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-5"))
    with pytest.raises(UserError, match="checkpoint-7: no such folder"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-7"))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_a_missing_part_is_forgiven_only_when_asked(whole_run, tmp_path, name):
    """Fault 3: prevents a run that silently goes on without its optimizer."""
    left_by(whole_run, tmp_path, 5)
    (tmp_path / "checkpoint-5" / name).unlink()
    with pytest.raises(UserError, match="--allow_inexact_resume"):
        trainer_in(tmp_path).train(resume_from_checkpoint=True)
    trainer = trainer_in(tmp_path, allow_inexact_resume=True)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == STEPS


def test_an_inexact_resume_takes_the_new_rate_and_decay(whole_run, tmp_path):
    """Prevents settings that were given, and warned of, from giving way to the checkpoint's."""
    left_by(whole_run, tmp_path, 5)
    stored = safetensors.torch.load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    new = {"learning_rate": 1e-60, "weight_decay": 0.25, "allow_inexact_resume": True}
    trainer = trainer_in(tmp_path, save_strategy="no", **new)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == STEPS
    assert 0.25 in {group["weight_decay"] for group in trainer.optimizer.param_groups}
    ours = weights_of(trainer)
    for name, value in stored.items():
        assert torch.equal(ours[name], value), f"{name} was trained at the old rate"


def test_an_inexact_resume_with_the_same_settings_changes_no_bit(whole_run, tmp_path):
    """Prevents the rate of the step after a resume from being another than the schedule's."""
    left_by(whole_run, tmp_path, 5)
    trainer = trainer_in(tmp_path, save_strategy="no", allow_inexact_resume=True)
    trainer.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(trainer), whole_run[1])


def test_an_empty_newest_folder_and_an_incomplete_mark(whole_run, tmp_path, caplog):
    """Fault 5: prevents an empty checkpoint-99 from hiding the good ones before it."""
    left_by(whole_run, tmp_path, 4)
    (tmp_path / "checkpoint-99").mkdir()
    (tmp_path / "checkpoint-98").mkdir()
    (tmp_path / "checkpoint-98" / "checkpoint-is-incomplete.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, "latest").step == 4
    assert "checkpoint-99" in caplog.text
    assert "checkpoint-98" in caplog.text


def test_nothing_to_resume_from(tmp_path):
    """Prevents a resumed run from silently starting afresh."""
    with pytest.raises(UserError, match="holds no checkpoint"):
        trainer_in(tmp_path).train(resume_from_checkpoint=True)


def test_a_fresh_start_loses_no_checkpoint(whole_run, tmp_path):
    """Prevents a forgotten flag from overwriting hours of work."""
    left_by(whole_run, tmp_path, 4)
    with pytest.raises(UserError, match="holds checkpoints of an earlier run"):
        trainer_in(tmp_path).train()
    assert complaint(tmp_path / "checkpoint-4") is None


@pytest.mark.parametrize(
    "other", [{"seed": 7}, {"temperature": 3.0}, {"learning_rate": 0.1}, {"alpha_ce": 1.0}]
)
def test_other_settings_are_another_run(whole_run, tmp_path, other):
    """Prevents half a run with one learning rate and half with another from passing for one."""
    left_by(whole_run, tmp_path, 4)
    with pytest.raises(UserError, match=f"was made with {next(iter(other))}"):
        trainer_in(tmp_path, **other).train(resume_from_checkpoint=True)


def test_another_order_of_a_tasks_batches_is_another_run(tmp_path):
    """Prevents a sampler that was changed since from giving a resumed run other batches."""
    steps = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    updates.trainer_for("classification", tmp_path, **steps).train()
    changed = {**steps, "accelerator_config": {"split_batches": True}}
    trainer = updates.trainer_for("classification", tmp_path, **changed)
    with pytest.raises(UserError, match="was made with accelerator_config None"):
        trainer.train(resume_from_checkpoint=True)


def test_a_manifest_does_not_reach_outside(whole_run, tmp_path):
    """Fault 18: prevents a checkpoint from somebody else from naming files elsewhere."""
    left_by(whole_run, tmp_path, 4)
    file = tmp_path / "checkpoint-4" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"]["../../outside"] = {"size": 1, "sha256": ""}
    file.write_text(json.dumps(manifest))
    assert complaint(file.parent) == "../../outside points outside of it"


# Being stopped


class Do(transformers.TrainerCallback):
    """Does something in the middle of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_substep_end(self, args, state, control, **_):
        if state.global_step == self.step:
            self.action()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(whole_run, tmp_path, number):
    """Fault 7: prevents an interrupted run from losing its steps, or a bit."""
    trainer = trainer_in(tmp_path, save_steps=100)
    before = signal.getsignal(number)
    trainer.add_callback(Do(4, lambda: os.kill(os.getpid(), number)))
    # Not a return: a script would go on with a student that was trained in part.
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        trainer.train()
    if number == signal.SIGINT:
        assert f"interrupted at step 5 of 12: saved {tmp_path}/checkpoint-5" in str(caught.value)
    else:
        assert caught.value.code == 143
    assert trainer.stop_signal == number
    assert trainer.state.global_step == 5
    assert signal.getsignal(number) is before
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    again = trainer_in(tmp_path)
    again.train(resume_from_checkpoint=True)
    assert again.stop_signal is None
    assert_equal_bits(weights_of(again), whole_run[1])


def in_a_fork(function, *arguments):
    """Runs a function in a forked process, which costs no import; returns its exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


def killed_while_saving(folder, file):
    """Trains until step 5 and dies in the middle of writing one of its files."""
    trainer = trainer_in(folder)
    save = torch.save

    def half_a_file(state, path, *rest, **named):
        save(state, path, *rest, **named)
        if trainer.state.global_step == 5 and Path(path).name == file:
            truncate(Path(path))
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half_a_file
    trainer.train()


@pytest.mark.parametrize("file", ["optimizer.pt", "rng_state.pth"])
def test_kill_9_while_a_checkpoint_is_written(whole_run, tmp_path, file):
    """Fault 1: prevents half a checkpoint from being found, and anything from being lost."""
    assert in_a_fork(killed_while_saving, tmp_path, file) == -signal.SIGKILL
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [*(f"checkpoint-{step}" for step in (1, 2, 3, 4)), "saving-checkpoint-5"]
    assert find_checkpoint(tmp_path, "latest").step == 4
    trainer = trainer_in(tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(trainer), whole_run[1])
    assert not list(tmp_path.glob("saving-*"))


def test_old_checkpoints_go_only_after_the_new_one_is_complete(tmp_path):
    """Fault 12: prevents more or fewer than `save_total_limit` whole checkpoints at the end."""
    trainer_in(tmp_path, save_total_limit=2).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-11",
        "checkpoint-12",
    ]


def steps_in(folder):
    return sorted(
        int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*")
    )


def test_the_best_checkpoint_is_kept(whole_run, tmp_path, caplog):
    """Prevents rotation from removing the best checkpoint, and others without a word."""
    left_by(whole_run, tmp_path, 1, 2, 3, 4, 5)
    with caplog.at_level(logging.INFO, "distil_trainer"):
        checkpoint.rotate(tmp_path / "checkpoint-5", 2, str(tmp_path / "checkpoint-2"))
    assert steps_in(tmp_path) == [2, 5]
    assert caplog.messages == [
        f"removed {tmp_path}/checkpoint-{step} (save_total_limit 2)" for step in (1, 3, 4)
    ]


def test_rotation_is_not_misled(whole_run, tmp_path):
    """Prevents a torn or abandoned newer folder from pushing out the checkpoint just written."""
    left_by(whole_run, tmp_path, 2, 8, 10)
    (tmp_path / "checkpoint-99").mkdir()
    trainer = trainer_in(tmp_path, save_total_limit=2, max_steps=-1)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert steps_in(tmp_path) == [11, 12, 99]
    assert_equal_bits(weights_of(trainer), whole_run[1])


def test_another_output_folder_with_checkpoints(whole_run, tmp_path):
    """Prevents a checkpoint elsewhere from being a way around the refusal to lose any."""
    left_by(whole_run, tmp_path / "a", 5)
    left_by(whole_run, tmp_path / "b", 8)
    elsewhere = str(tmp_path / "a" / "checkpoint-5")
    with pytest.raises(UserError, match="holds checkpoints of an earlier run"):
        trainer_in(tmp_path / "b").train(resume_from_checkpoint=elsewhere)
    trainer = trainer_in(tmp_path / "c")
    trainer.train(resume_from_checkpoint=elsewhere)
    assert_equal_bits(weights_of(trainer), whole_run[1])


IN_ASCII = """
import sys
from pathlib import Path
from distil_trainer.training.checkpoint import find_checkpoint
print(ascii(find_checkpoint(Path(sys.argv[1]), "latest").settings["run_name"]))
"""


def test_a_manifest_is_read_as_utf_8_whatever_the_locale(whole_run, tmp_path):
    """Prevents a name with an accent from making a whole checkpoint pass for a damaged one."""
    file = left_by(whole_run, tmp_path, 4) / "checkpoint-4" / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["settings"]["run_name"] = "caf\u00e9"
    file.write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    ascii_alone = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", IN_ASCII, str(tmp_path)]
    ended = subprocess.run(
        command, env=os.environ | ascii_alone, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "'caf\\xe9'\n", ended.stderr[-2000:]


def test_a_manifest_that_leaves_something_out(whole_run, tmp_path):
    """Prevents bytes that nobody vouched for from being loaded."""
    left_by(whole_run, tmp_path, 4)
    folder = tmp_path / "checkpoint-4"
    file = folder / "manifest.json"
    whole = json.loads(file.read_text())
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth"):
        files = {key: value for key, value in whole["files"].items() if key != name}
        file.write_text(json.dumps({**whole, "files": files}))
        assert "lacks" in complaint(folder)
    file.write_text(json.dumps({"step": 4, "settings": {}, "files": {"x": 1}}))
    assert complaint(folder) == "its manifest.json is damaged"
    file.write_text(json.dumps(whole))
    (folder / "stray.pt").write_text("")
    assert complaint(folder) == "its manifest.json does not list stray.pt"


def test_a_run_killed_after_its_last_step_has_nothing_left_to_train(tmp_path):
    """Prevents one more step than was asked for, where the last wasn't at an epoch's end."""
    settings = {"max_steps": 4, "lr_scheduler_type": "constant"}
    trainer = trainer_in(tmp_path, **settings)
    trainer.train()
    again = trainer_in(tmp_path, **settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    assert_equal_bits(weights_of(again), weights_of(trainer))
    assert steps_in(tmp_path) == [1, 2, 3, 4]


EVALUATING = {
    "best": {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 2},
    "epoch": {"save_strategy": "epoch", "eval_strategy": "epoch"},
    "limit": {"save_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 1},
    "no": {"save_strategy": "no"},
}


@pytest.mark.parametrize("name", EVALUATING)
@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_signal_whatever_is_saved_when(tmp_path, name, step):
    """Fault 7: prevents a strategy of saving from losing a stopped run, or changing its end."""
    best = {"metric_for_best_model": "loss", "load_best_model_at_end": True}
    best = {} if name == "no" else best
    settings = {**EVALUATING[name], **best}

    def trainer_of(folder):
        return trainer_in(tmp_path / folder, eval_data=updates.sequences(160), **settings)

    whole = trainer_of("whole")
    whole.train()
    stopped = trainer_of("stopped")
    stopped.add_callback(Do(step, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(SystemExit):
        stopped.train()
    assert stopped.stop_signal == signal.SIGTERM
    assert complaint(tmp_path / "stopped" / f"checkpoint-{step + 1}") is None
    resumed = trainer_of("stopped")
    resumed.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(resumed), weights_of(whole))
    assert resumed.state.best_global_step == whole.state.best_global_step


def test_a_signal_in_the_last_step_changes_nothing(tmp_path):
    """Prevents a finished run from being called interrupted, without a checkpoint to go on from."""
    trainer = trainer_in(tmp_path, max_steps=4, save_strategy="no")
    trainer.add_callback(Do(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    trainer.train()
    assert trainer.stop_signal is None
    assert trainer.state.global_step == 4


def full_disk(folder, limit):
    """Trains in a process that may write no file larger than `limit` bytes."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    trainer = trainer_in(folder)
    trainer.train_dataset  # noqa: B018  (built before the limit holds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        trainer.train()
    except RunFailed as error:
        os._exit(7 if "could not be written" in str(error) else 8)


def test_a_full_disk_while_weights_are_written(tmp_path):
    """Fault 12: prevents half a checkpoint where safetensors, not torch, meets a disk's end."""
    assert in_a_fork(full_disk, tmp_path, 20_000) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["teacher", "data", "student"])
def test_another_teacher_or_text_or_student_is_another_run(whole_run, tmp_path, what):
    """Prevents half a run under one teacher and half under another from passing for one."""
    left_by(whole_run, tmp_path, 4)
    teacher = updates.tiny.bert(layers=2)
    other = {
        "teacher": {"teacher": updates.tiny.bert(layers=2, seed=9)},
        "data": {"data": updates.sequences(150, count=24)},
        "student": {"student": updates.make_student(teacher, num_layers=1, init="random")},
    }[what]
    with pytest.raises(UserError, match=f"was made with {what}"):
        trainer_in(tmp_path, **other).train(resume_from_checkpoint=True)


if __name__ == "__main__":
    main(sys.argv[1])


class Filling(transformers.TrainerCallback):
    """Fills a small disk before the checkpoint of a step, except for a few bytes."""

    def __init__(self, folder, step, leave):
        self.folder, self.step, self.leave = folder, step, leave

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            fill(self.folder, self.leave)


@pytest.mark.parametrize("leave", [0, 60_000, 200_000])
def test_a_really_full_disk_in_the_middle_of_a_checkpoint(whole_run, tmp_path, leave):
    """Fault 12: prevents half a checkpoint, and a line that doesn't say that the disk is full.

    With room for the config, for the weights, and for half of the optimizer's state: torch and
    safetensors each hide the system's reason in a way of their own.
    """
    with small_disk(tmp_path / "out", "8m") as out:
        trainer = trainer_in(out, save_total_limit=1)
        trainer.add_callback(Filling(out, 4, leave))
        expected = rf"step 4: the checkpoint in {out} could not be written: the disk is full"
        with pytest.raises(RunFailed, match=expected):
            trainer.train()
        (out / "filler").unlink()
        assert [path.name for path in out.iterdir()] == ["checkpoint-3"]
        again = trainer_in(out)
        again.train(resume_from_checkpoint=True)
        assert_equal_bits(weights_of(again), whole_run[1])


def test_a_limit_of_the_file_size_is_named_in_a_checkpoint(tmp_path):
    """Prevents "disk full", or torch's "unexpected pos 576 vs 534", for a `ulimit -f`."""
    trainer = trainer_in(tmp_path)
    with (
        file_size_limit(150_000),
        pytest.raises(RunFailed, match=r"step 1: .* file size limit is reached \(see ulimit -f\)"),
    ):
        trainer.train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leave", [0, 60_000])
def test_the_final_save_on_a_full_disk_is_whole_or_absent(tmp_path, leave):
    """Prevents a folder with a config and half of its weights, which loads until it doesn't."""
    trainer = trainer_in(tmp_path / "run")
    with small_disk(tmp_path / "out", "1m") as out:
        fill(out, leave)
        with pytest.raises(RunFailed, match=rf"{out}: the student .*saved: the disk is full"):
            trainer.save_model(str(out))
        assert [path.name for path in out.iterdir()] == ["filler"]
        (out / "filler").unlink()
        trainer.save_model(str(out))
        before = sorted(out.iterdir())
        fill(out, leave)
        with pytest.raises(RunFailed, match="the disk is full"):
            trainer.save_model(str(out))
        (out / "filler").unlink()
        assert sorted(out.iterdir()) == before  # the earlier one is still there
        transformers.AutoModelForMaskedLM.from_pretrained(out)


def killed_in(folder, name, monkeypatched, prepare):
    """Makes a trainer, and kills this process in the middle of a function of a module."""
    trainer = prepare(folder)
    module = sys.modules[monkeypatched]
    original = getattr(module, name)

    def half(path, *rest, **named):
        path = Path(path)
        if path.is_dir() and any(path.iterdir()):
            if name == "rmtree":
                sorted(path.iterdir())[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        original(path, *rest, **named)

    setattr(module, name, half)
    trainer.train()
    os._exit(3)


def test_kill_9_while_old_checkpoints_are_removed(whole_run, tmp_path):
    """Prevents half of an old checkpoint from staying under its name for ever."""

    def prepare(folder):
        return trainer_in(folder, save_total_limit=2)

    killed = in_a_fork(killed_in, tmp_path, "rmtree", "shutil", prepare)
    assert killed == -signal.SIGKILL
    found = [path for path in tmp_path.iterdir() if path.name.startswith("checkpoint-")]
    assert sorted(path.name for path in found) == ["checkpoint-2", "checkpoint-3"]
    assert [checkpoint.complaint(path) for path in found] == [None, None]
    trainer = trainer_in(tmp_path, save_total_limit=2)
    trainer.train(resume_from_checkpoint=True)
    assert_equal_bits(weights_of(trainer), whole_run[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-11", "checkpoint-12"]


def test_a_checkpoint_that_was_being_replaced_is_found(whole_run, tmp_path):
    """Prevents the loss of the only checkpoint to a kill between two renames."""
    left_by(whole_run, tmp_path, 5)
    (tmp_path / "checkpoint-5").rename(tmp_path / "saving-replaced-5")
    assert find_checkpoint(tmp_path, "latest").step == 5
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_kill_9_in_the_final_save_leaves_no_model(tmp_path):
    """Prevents half a student from lying where a whole one is expected."""

    def save(folder):
        trainer = trainer_in(folder / "run")
        model = type(trainer.student)
        write = model.save_pretrained

        def half(self, *arguments, **named):
            write(self, *arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        model.save_pretrained = half
        trainer.save_model(str(folder / "out"))

    assert in_a_fork(save, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "out" / "config.json").exists()
    assert not (tmp_path / "out" / "model.safetensors").exists()
    trainer = trainer_in(tmp_path / "run")
    trainer.save_model(str(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "training_args.json"} <= names
    assert not [name for name in names if name.startswith("saving-")]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_kill_9_while_a_second_save_takes_the_firsts_place(tmp_path, moved):
    """Prevents a student's folder whose weights are of one save and whose config of another."""
    out = tmp_path / "out"

    def save(folder):
        trainer = trainer_in(folder / "run")
        trainer.save_model(str(out))
        with torch.no_grad():
            next(trainer.student.parameters()).add_(1.0)
        move, done = Path.replace, []

        def stopped(self, target):
            if Path(target).parent == out:
                if len(done) == moved:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(target)
            return move(self, target)

        Path.replace = stopped
        trainer.save_model(str(out))

    assert in_a_fork(save, tmp_path) == -signal.SIGKILL
    assert not (out / "config.json").exists()
    with pytest.raises((OSError, ValueError)):
        transformers.AutoModelForMaskedLM.from_pretrained(out)
    trainer = trainer_in(tmp_path / "run")
    trainer.save_model(str(out))
    model = transformers.AutoModelForMaskedLM.from_pretrained(out)
    assert_equal_bits(model.state_dict(), weights_of(trainer))


def test_a_term_that_was_added_since_weighs_nothing_in_an_older_checkpoint(tmp_path):
    """Prevents a new term of the loss from making every earlier checkpoint useless."""
    older = checkpoint.Checkpoint(tmp_path, 3, {"alpha_ce": 5.0, "lr": 1.0})
    checkpoint.require_same_settings(older, {"alpha_ce": 5.0, "alpha_new": 0.0, "lr": 1.0})
    with pytest.raises(UserError, match=r"alpha_new 0\.0 \(now 1\.0\)"):
        checkpoint.require_same_settings(older, {"alpha_ce": 5.0, "alpha_new": 1.0, "lr": 1.0})
    with pytest.raises(UserError, match="seed None"):
        checkpoint.require_same_settings(older, {"alpha_ce": 5.0, "lr": 1.0, "seed": 0.0})


def test_other_settings_that_were_allowed_are_warned_of(tmp_path, caplog):
    """Prevents a resume to another result, although asked for, without a line that says so."""
    older = checkpoint.Checkpoint(tmp_path, 3, {"alpha_ce": 5.0, "lr": 1.0})
    with caplog.at_level(logging.WARNING):
        checkpoint.require_same_settings(older, {"alpha_ce": 5.0, "lr": 1.0}, inexact=True)
        assert caplog.messages == []
        checkpoint.require_same_settings(older, {"alpha_ce": 5.0, "lr": 2.0}, inexact=True)
    expected = f"{tmp_path} was made with lr 1.0 (now 2.0): the result will differ"
    assert caplog.messages == [expected]


def test_placed_files_are_on_disk_in_folders_of_any_depth(tmp_path, monkeypatch):
    """Prevents a power cut from undoing a finished save, and nested files from failing one."""
    staging, out = tmp_path / "staging", tmp_path / "out"
    names = ["config.json", "deep/er/vocab.txt", "model.safetensors"]
    for name in names:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_text(name)
    out.mkdir()
    done, fsync, rename = [], os.fsync, Path.replace

    def note(handle):
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def renamed(self, target):
        done.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", renamed)
    checkpoint.place_files(staging, out)
    files = [Path(name).name for name in names]
    assert sorted(done[:3]) == sorted(files)
    assert done[3:] == ["renamed"] * 3 + ["out"]
    assert {name: (out / name).read_text() for name in names} == dict(
        zip(names, names, strict=True)
    )
