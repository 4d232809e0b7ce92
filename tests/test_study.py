"""`make study`: Table 4 from a teacher and a corpus; what it will cost is said before."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import worlds

from angels_share.cli import open_door
from distil_trainer import recipe
from distil_trainer.cli import PRETRAIN_DOOR
from eval_harness.cli import GLUE_DOOR

ROOT = Path(__file__).parent.parent
COST_DOOR = runpy.run_path(str(ROOT / "examples" / "study_cost.py"))["COST_DOOR"]
DISTIL = "--num_layers 1 --min_tokens 4 --use_cpu --report_to none --disable_tqdm"
GLUE = "--tasks cola rte --seeds 11 22 --use_cpu --num_train_epochs 2"


@pytest.fixture
def world(tmp_path):
    """A teacher, tiny tasks and a corpus of their words."""
    worlds.make(tmp_path)
    lines = [
        " ".join(worlds.WORDS[i : i + 3 + i % 9])
        for _ in range(20)
        for i in range(len(worlds.WORDS))
    ]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    return tmp_path


def words(world, **changed):
    given = {
        "teacher": world / "bert", "corpus": world / "corpus.txt", "data": world / "glue",
        "out": world / "study", "distil": DISTIL, "glue": GLUE, **changed,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in given.items()]


def cost(world, capsys, **changed):
    assert open_door(COST_DOOR, words(world, **changed)) == 0
    return capsys.readouterr().out


def numbers(text, pattern):
    found = re.search(pattern, text)
    assert found, text
    return [int(each.replace(",", "")) for each in found.groups()]


def test_the_cost_is_what_the_run_takes(world, capsys):
    """Prevents a count that the Trainer contradicts hours later, and a corpus prepared twice."""
    distil = f"{DISTIL} --tokens_per_batch 512 --gradient_accumulation_steps 2"
    distil += " --num_train_epochs 2 --validation_fraction 0.1"
    said = cost(world, capsys, distil=distil)
    (steps,) = numbers(said, r"tokens: ([\d,]+) steps")
    total, tokens = numbers(said, r"together ([\d,]+) steps, ([\d,]+) tokens")
    assert total == 5 * steps
    status = open_door(PRETRAIN_DOOR, [
        "--teacher", str(world / "bert"), "--corpus", str(world / "corpus.txt"),
        "--output_dir", str(world / "study" / "none"), "--corpus_dir", str(world / "study/corpus"),
        *distil.split(),
    ])  # fmt: skip
    assert status == 0
    record = json.loads((world / "study" / "none" / "distil.json").read_text())
    assert record["step"] == steps
    assert tokens == 5 * 2 * record["corpus"]["train"]["tokens"]
    assert len([path for path in (world / "study" / "corpus").iterdir() if path.is_dir()]) == 1
    assert "1 are finished" in cost(world, capsys, distil=distil)


def test_so_many_steps_are_so_many(world, capsys):
    """Prevents --max_steps from being overlooked in the count."""
    said = cost(world, capsys, distil=f"{DISTIL} --max_steps 7")
    assert numbers(said, r"together ([\d,]+) steps") == [35]
    runs, examples = numbers(said, r"seeds: ([\d,]+) runs, ([\d,]+) examples learned from")
    assert (runs, examples) == (5 * 2 * 2, 5 * 2 * 2 * 48 * 2)
    said = cost(world, capsys, distil=f"{DISTIL} --stream_corpus --max_steps 7")
    assert numbers(said, r"together ([\d,]+) steps") == [35]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "none"}, "a study wants a teacher"),
        ({"teacher": "berd"}, "did you mean 'bert'?"),
        ({"glue": "--tasks rtee"}, "did you mean 'rte'?"),
        ({"glue": "--tasks mnli"}, "no MNLI in it"),
        ({"distil": "--num_layer 1"}, "did you mean --num_layers?"),
        ({"corpus": "nowhere.txt"}, "nowhere.txt"),
    ],
)
def test_a_mistake_is_said_before_hours_of_work(world, capsys, changed, said):
    """Prevents five students from being made before a task's name turns out to be wrong."""
    assert open_door(COST_DOOR, words(world, **changed)) == 2
    assert said in capsys.readouterr().err
    assert not list((world / "study").glob("no*"))


def test_the_makefile_names_every_student():
    """Prevents an ablation that is made and never judged."""
    text = (ROOT / "Makefile").read_text()
    (students,) = re.findall(r"^STUDENTS := (.*)$", text, flags=re.MULTILINE)
    assert students.split() == list(recipe.ABLATIONS)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
GIVEN = {"TEACHER": "t", "CORPUS": "a b", "DATA": "hub", "OUT": "o p"}


def make(*targets, **variables):
    command = ["make", "-C", str(ROOT), *targets, *(f"{n}={v}" for n, v in variables.items())]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_make
@pytest.mark.parametrize("missing", GIVEN)
def test_what_is_missing_is_said(missing):
    """Prevents a study of nobody, or one that is written to the root of the disk."""
    done = make("study-wants", **{**GIVEN, missing: ""})
    assert done.returncode == 2
    assert f"make study: {missing}= is missing, as in: make study TEACHER=bert" in done.stderr
    assert make("study-wants", **GIVEN).returncode == 0


@needs_make
def test_the_recipe_is_the_two_commands():
    """Prevents variables that reach only one of them, a split path, or a study that starts anew."""
    done = make("--dry-run", "--assume-old=.venv/.ready", "study", **GIVEN, DISTIL="--seed 5",
                GLUE="--seeds 11")  # fmt: skip
    distil, glue = (
        next(line for line in done.stdout.replace("\\\n", "").splitlines() if name in line)
        for name in ("run_pretrain_distill.py", "run_glue.py")
    )
    assert '--teacher t --corpus a b --output_dir "o p"' in distil
    assert {"all", "--resume_from_checkpoint", "5"} <= set(distil.split())
    assert '"o p/none" "o p/no-ce"' in glue
    assert '--results_dir "o p/results" --seeds 11' in re.sub(" +", " ", glue)
    assert "--data_dir" not in glue


@pytest.mark.slow
def test_a_study_from_end_to_end(world, capsys):
    """Prevents parts that work alone and make no Table 4 together; run again, nothing is done."""
    out = world / "study"
    distil = ["--teacher", str(world / "bert"), "--corpus", str(world / "corpus.txt"),
              "--output_dir", str(out), "--ablation", "all", "--resume_from_checkpoint",
              *DISTIL.split(), "--max_steps", "3"]  # fmt: skip
    glue = ["--model", *(str(out / name) for name in recipe.ABLATIONS), "--data_dir",
            str(world / "glue"), "--results_dir", str(out / "results"), *GLUE.split()]  # fmt: skip
    for _ in range(2):
        assert open_door(PRETRAIN_DOOR, distil) == 0
        assert open_door(GLUE_DOOR, glue) == 0
        text = (out / "results" / "table4.md").read_text()
        changes = re.findall(r"\(study/[a-z-]+\) .*[+-][0-9.]+ \[.* to .*\] .* 2 of 9 \|", text)
        assert len(changes) == 4
    assert capsys.readouterr().out.count("complete, nothing to do") == 5
    said = cost(world, capsys, distil=f"{DISTIL} --max_steps 3")
    assert "5 are finished" in said
    assert "20 have a result" in said
