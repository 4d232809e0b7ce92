"""`run_pretrain_distill --seeds`: several students by one command, each as if it were alone."""

import json
import os
import signal

import numpy as np
import pytest
import tiny
import transformers

from angels_share.ablations import ABLATIONS
from angels_share.cli import DONE, RUN_FAILED, run_command
from angels_share.flags import parse
from angels_share.hub.push import Destination
from distil_trainer import pretrain
from distil_trainer.cli import PRETRAIN
from distil_trainer.training.trainer import DistilTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A teacher's folder and a corpus of some lines of its language."""
    folder = tmp_path_factory.mktemp("seeds")
    tiny.folder(folder / "teacher", tiny.bert(layers=2), tiny.wordpiece())
    rng = np.random.default_rng(0)
    words = " ".join(tiny.LINES).split()
    lines = [" ".join(rng.choice(words, rng.integers(12, 30))) for _ in range(60)]
    (folder / "corpus.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture
def distil(world, tmp_path):
    """Run the command in this process, with its output in a folder of this test's."""

    def run(*words, out="out"):
        return run_command(PRETRAIN, ["--output_dir", str(tmp_path / out), *flags(world), *words])

    return run


def flags(world):
    return [
        "--teacher", str(world / "teacher"), "--corpus", str(world / "corpus.txt"),
        "--corpus_dir", str(world / "prepared"), "--max_steps", "2", "--report_to", "none",
        "--use_cpu", "--disable_tqdm", "--validation_fraction", "0", "--save_steps", "1",
    ]  # fmt: skip


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def record(folder):
    return json.loads((folder / "distil.json").read_text())


def finished(folder):
    return sorted(
        path.parent.relative_to(folder).as_posix() for path in folder.rglob("distil.json")
    )


def test_each_student_is_the_one_that_its_seed_alone_makes(distil, tmp_path, capsys):
    """Prevents a student that depends on those that were trained before it in the same process.

    What a seed makes would then be another student after an interruption, and students of several
    seeds no independent repetitions.
    """
    assert distil("--seeds", "3", "4", "--ablation", "all") == 0
    places = [f"seed-{seed}/{name}" for seed in (3, 4) for name in ABLATIONS]
    assert finished(tmp_path / "out") == sorted(places)
    ended = [line for line in capsys.readouterr().out.splitlines() if "DistilBert" in line]
    assert [line.partition(":")[0] for line in ended] == [
        str(tmp_path / "out" / place) for place in places
    ]
    for seed in (3, 4):
        for name in ABLATIONS:
            alone = f"alone-{seed}-{name}"
            assert distil("--seed", str(seed), "--ablation", name, out=alone) == 0
            several = tmp_path / f"out/seed-{seed}/{name}"
            assert weights(several) == weights(tmp_path / alone), several
            assert record(several)["recipe"] == record(tmp_path / alone)["recipe"]
            assert record(several)["ablation"] == name
    assert len({weights(tmp_path / "out" / place) for place in places}) == len(places)


def test_without_ablations_a_seed_is_a_folder(distil, tmp_path):
    """Prevents a folder `none` where nobody asked for ablations, and a seed that is done twice."""
    assert distil("--seeds", "5", "6", "5", "--ablation", "no-cos") == 0
    assert finished(tmp_path / "out") == ["seed-5", "seed-6"]
    assert [record(tmp_path / f"out/seed-{n}")["recipe"]["seed"] for n in (5, 6)] == [5, 6]
    assert record(tmp_path / "out/seed-5")["ablation"] == "no-cos"


def test_seeds_without_a_teacher(world, distil, tmp_path):
    """Prevents students without a teacher that all begin with the same weights."""
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "distilbert", "vocab_size": 160, "n_layers": 1, "dim": 32,
                "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64, "pad_token_id": 0,
            }
        )
    )  # fmt: skip
    words = ["--teacher", "none", "--student", str(config), "--student_init", "random"]
    words += ["--tokenizer", str(world / "teacher")]
    assert distil(*words, "--seeds", "7", "8") == 0
    assert distil(*words, "--seed", "8", out="alone") == 0
    assert weights(tmp_path / "out/seed-8") == weights(tmp_path / "alone")
    assert weights(tmp_path / "out/seed-7") != weights(tmp_path / "alone")


@pytest.mark.parametrize("how", ["flag", "file"])
def test_seeds_and_a_seed_contradict_each_other(distil, tmp_path, capsys, how):
    """Prevents the one of them that was meant from being ignored without a word."""
    words = ["--seed", "3"]
    if how == "file":
        (tmp_path / "flags.yaml").write_text("seed: 3\n")
        words = ["--config", str(tmp_path / "flags.yaml")]
    assert distil("--seeds", "3", "4", *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["run_pretrain_distill: --seeds and --seed: pass only one of them"]
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("seed", ["-1", "4294967296", "many", "1.5"])
def test_what_is_no_seed_is_refused_before_anything_is_trained(distil, tmp_path, capsys, seed):
    """Prevents a refusal by the random generator after the students of the other seeds."""
    assert distil("--seeds", "3", seed) == 2
    said = capsys.readouterr().err
    assert "--seeds" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --- resuming


def test_what_is_finished_is_skipped(distil, tmp_path, capsys):
    """Prevents the same command, after an interruption, from training all again or refusing."""
    assert distil("--seeds", "3", "4") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    capsys.readouterr()
    assert distil("--seeds", "3", "4", "9", "--resume_from_checkpoint") == 0
    said = capsys.readouterr().out.splitlines()
    folders = [tmp_path / f"out/seed-{seed}" for seed in (3, 4)]
    assert said[:2] == [f"{folder}: complete, nothing to do" for folder in folders]
    assert all(path.stat().st_mtime_ns == before[path] for path in before if path.is_file())
    assert finished(tmp_path / "out") == ["seed-3", "seed-4", "seed-9"]


def test_without_resuming_what_is_finished_is_refused(distil, tmp_path, capsys):
    """Prevents the same command, typed again, from destroying what the first one made."""
    assert distil("--seeds", "3") == 0
    before = weights(tmp_path / "out/seed-3")
    assert distil("--seeds", "3") == 2
    assert f"{tmp_path}/out/seed-3 holds a finished student" in capsys.readouterr().err
    assert weights(tmp_path / "out/seed-3") == before


def test_an_interruption_ends_all_and_each_goes_on_where_it_was(distil, tmp_path, monkeypatch):
    """Prevents Ctrl-C from ending one student only, and a resumed one from being another."""
    train = DistilTrainer.train

    def interrupted(self, **named):
        class Interrupt(transformers.TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                if args.seed == 4 and state.global_step == 0:
                    os.kill(os.getpid(), signal.SIGTERM)

        self.add_callback(Interrupt())
        return train(self, **named)

    with monkeypatch.context() as patch:
        patch.setattr(DistilTrainer, "train", interrupted)
        assert distil("--seeds", "3", "4", "5") == 143
    assert finished(tmp_path / "out") == ["seed-3", "seed-4"]
    assert record(tmp_path / "out/seed-4")["status"] == "interrupted"
    assert distil("--seeds", "3", "4", "5", "--resume_from_checkpoint") == 0
    assert distil("--seeds", "3", "4", "5", out="at-once") == 0
    for seed in (3, 4, 5):
        assert weights(tmp_path / f"out/seed-{seed}") == weights(tmp_path / f"at-once/seed-{seed}")


# --- the Hub


PLACE = Destination("me/small", private=False)


@pytest.fixture
def jobs(monkeypatch):
    """Trains nothing: the jobs that would run; `jobs.statuses` are what they return in turn."""

    class Jobs(list):
        statuses = ()

    made = Jobs()

    def run(job):
        made.append(job)
        return made.statuses[len(made) - 1] if made.statuses else DONE

    monkeypatch.setattr(pretrain._Job, "run", run)
    return made


def pushed(world, tmp_path, jobs, *words, destination=PLACE):
    """Return the status, and the place and the repository of each student."""
    words = [*flags(world), "--output_dir", str(tmp_path / "out"), *words]
    options = parse(PRETRAIN.flags, words, takes_training_flags=True)
    status = pretrain.pretrain(options, destination)
    places = {job.folder.relative_to(tmp_path).as_posix(): job.destination for job in jobs}
    return status, places


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], {"out": "me/small"}),
        (["--ablation", "no-ce"], {"out": "me/small"}),
        (["--seeds", "3"], {"out/seed-3": "me/small-seed-3"}),
        (
            ["--seeds", "3", "4"],
            {"out/seed-3": "me/small-seed-3", "out/seed-4": "me/small-seed-4"},
        ),
        (["--ablation", "all"], {f"out/{name}": f"me/small-{name}" for name in ABLATIONS}),
        (
            ["--seeds", "4", "3", "--ablation", "all"],
            {
                f"out/seed-{seed}/{name}": f"me/small-seed-{seed}-{name}"
                for seed in (4, 3)
                for name in ABLATIONS
            },
        ),
    ],
)
def test_each_student_has_a_repository_of_its_own(world, tmp_path, jobs, words, names):
    """Prevents students that overwrite each other on the Hub, or a name that the Hub refuses."""
    status, places = pushed(world, tmp_path, jobs, *words)
    assert status == DONE
    assert list(places) == list(names)
    assert {place: each.repo_id for place, each in places.items()} == names
    assert all(each.repo_id.count("/") == 1 and not each.private for each in places.values())


def test_nothing_is_pushed_unasked(world, tmp_path, jobs):
    """Prevents a repository named after nothing but a suffix."""
    _, places = pushed(world, tmp_path, jobs, "--seeds", "3", "4", destination=None)
    assert places == {"out/seed-3": None, "out/seed-4": None}


def test_a_push_that_failed_stops_no_training_and_a_signal_does(world, tmp_path, jobs):
    """Prevents one failed upload from costing the other students, and Ctrl-C from being ignored."""
    jobs.statuses = (RUN_FAILED, DONE, 143, DONE)
    status, places = pushed(world, tmp_path, jobs, "--seeds", "3", "4", "5", "6")
    assert list(places) == ["out/seed-3", "out/seed-4", "out/seed-5"]
    assert status == 143
