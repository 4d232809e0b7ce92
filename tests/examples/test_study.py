"""`make study`: Table 4 from a teacher and a corpus; its cost is printed first."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import made_results
import pytest
import tiny
import worlds
from places import ROOT

from angels_share.ablations import ABLATIONS
from angels_share.cli import run_command
from distil_trainer.cli import PRETRAIN
from eval_harness.commands import glue as run_glue
from eval_harness.runs.models import identify

COMMAND = runpy.run_path(str(ROOT / "examples" / "study_cost.py"))["COMMAND"]
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
    assert run_command(COMMAND, words(world, **changed)) == 0
    return capsys.readouterr().out


def runs(said):
    """Return the numbers of runs, of those to do, and of training examples in these."""
    return numbers(
        said, r": ([\d,]+) runs, ([\d,]+) of them to do, with ([\d,]+) training examples"
    )


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
    status = run_command(PRETRAIN, [
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
    assert runs(said) == [20, 20, 20 * 48 * 2]
    said = cost(world, capsys, distil=f"{DISTIL} --stream_corpus --max_steps 7")
    assert numbers(said, r"together ([\d,]+) steps") == [35]


def test_steps_of_glue_are_counted(world, capsys):
    """Prevents epochs from being counted where GLUE gets --max_steps; batches of 32 and 16."""
    assert runs(cost(world, capsys, glue=f"{GLUE} --max_steps 1"))[2] == 20 * 32
    assert runs(cost(world, capsys, glue=f"{GLUE} --max_steps 3"))[2] == 20 * (48 + 32)


def test_a_teacher_of_glue_is_counted(world, capsys):
    """Prevents the runs that fine-tune the teacher, one for each task, from coming as a surprise.

    Its words are compared with those that the students will have.
    """
    said = cost(world, capsys, glue=f"{GLUE} --teacher {world / 'bert'}")
    assert "and 2 of their teacher: 22 runs" in said
    assert runs(said) == [22, 22, 22 * 48 * 2]
    other = tiny.folder(world / "other", tiny.bert(1), tiny.wordpiece(["quite", "other"]))
    assert run_command(COMMAND, words(world, glue=f"{GLUE} --teacher {other}")) == 2
    assert "the tokenizers differ" in capsys.readouterr().err


def test_only_results_of_these_very_runs_are_there(world, capsys):
    """Prevents "20 runs, 30 have a result": results by others, with another setting, another task.

    What is there costs nothing, unless it is to be redone.
    """
    student = world / "study" / "no-ce"
    shutil.copytree(world / "distilbert", student)
    (student / "distil.json").write_text('{"status": "complete", "teachers": []}')
    given = {"max_seq_length": 128, "learning_rate": 3e-5, "per_device_train_batch_size": 32}
    run = worlds.run_on(world / "glue", student, seed=11, given=given)
    of = identify(str(student))
    made_results.put(
        world / "study" / "results",
        made_results.result(of, seed=11, given=run.settings),
        made_results.result(of, seed=33, given=run.settings),
        made_results.result(of, seed=22),
        made_results.result(seed=11, given=run.settings),
    )
    assert runs(cost(world, capsys)) == [20, 19, 19 * 48 * 2]
    assert runs(cost(world, capsys, glue=f"{GLUE} --rerun always"))[1] == 20
    assert runs(cost(world, capsys, glue=f"{GLUE} --rerun never"))[1:] == [0, 0]
    (student / "distil.json").write_text('{"status": "interrupted"}')
    said = cost(world, capsys)
    assert "0 are finished" in said
    assert runs(said)[1] == 20


def test_the_students_may_read_with_another_tokenizer(world, capsys):
    """Prevents a study from being refused since its teacher's folder holds no tokenizer."""
    for path in (world / "bert").glob("*token*"):
        path.unlink()
    distil = f"{DISTIL} --max_steps 7 --tokenizer {world / 'distilbert'}"
    assert runs(cost(world, capsys, distil=distil))[0] == 20
    assert run_command(COMMAND, words(world)) == 2
    assert "holds no tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": "none"}, "a study needs a teacher"),
        ({"teacher": "berd"}, "did you mean 'bert'?"),
        ({"glue": "--tasks rtee"}, "did you mean 'rte'?"),
        ({"glue": "--tasks mnli"}, "no MNLI found"),
        ({"distil": "--num_layer 1"}, "did you mean --num_layers?"),
        ({"corpus": "nowhere.txt"}, "nowhere.txt"),
        ({"distil": "--ablation no-ce"}, "the study sets --ablation itself"),
        ({"glue": "--results_dir there"}, "the study sets --results_dir itself"),
        ({"distil": '--text_column "x'}, '--distil --text_column "x: No closing quotation'),
        ({"glue": "--tasks 'rte"}, "No closing quotation"),
        ({"distil": '--text_column "my text" --max_step 3'}, "did you mean --max_steps?"),
        ({"distil": "--stream_corpus"}, "give the number of steps"),
    ],
)
def test_a_mistake_is_said_before_hours_of_work(world, capsys, changed, said):
    """Prevents five students from being made before a task's name turns out to be wrong."""
    assert run_command(COMMAND, words(world, **changed)) == 2
    assert said in capsys.readouterr().err
    assert not list((world / "study").glob("no*"))


def test_the_makefile_names_every_student():
    """Prevents an ablation that is trained and never evaluated."""
    text = (ROOT / "Makefile").read_text()
    (students,) = re.findall(r"^STUDENTS := (.*)$", text, flags=re.MULTILINE)
    assert students.split() == list(ABLATIONS)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
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


def commands(world, **changed):
    """Return the commands that `make study` would start, each as its arguments."""
    tell = world / "tell.py"
    tell.write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (world / "o p" / "results").mkdir(parents=True, exist_ok=True)
    (world / "o p" / "results" / "table4.md").write_text("Table 4\n")
    given = {**GIVEN, "OUT": world / "o p", "RUN": f"{sys.executable} {tell}", **changed}
    done = make("--assume-old=.venv/.ready", "study", **given)
    assert done.returncode == 0, done.stderr
    assert "Table 4" in done.stdout
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@needs_make
def test_the_recipe_is_the_two_commands(tmp_path):
    """Prevents variables that reach only one of them, a split path, or a study that starts anew."""
    cost, distil, glue = commands(tmp_path, DISTIL="--seed 5", GLUE="--seeds 11")
    out = str(tmp_path / "o p")
    assert cost[1:] == ["--teacher", "t", "--corpus", "a", "b", "--data", "hub", "--out", out,
                        "--distil=--seed 5", "--glue=--seeds 11"]  # fmt: skip
    assert distil == ["run_pretrain_distill.py", "--teacher", "t", "--corpus", "a", "b",
                      "--output_dir", out, "--ablation", "all", "--resume_from_checkpoint",
                      "--seed", "5"]  # fmt: skip
    assert glue == ["run_glue.py", "--model", *(f"{out}/{name}" for name in ABLATIONS),
                    "--results_dir", f"{out}/results", "--seeds", "11"]  # fmt: skip


@needs_make
def test_words_stay_whole(tmp_path):
    """Prevents blanks and quotes from splitting words, here or in the count, and a shell's $."""
    cost, distil, glue = commands(
        tmp_path, TEACHER="'my bert'", CORPUS='"a b.txt" c.txt', DATA='my "$$data',
        DISTIL='--text_column "my text"', GLUE="--config 'x y.yaml'",
    )  # fmt: skip
    for words in (cost, distil):
        assert words[1:6] == ["--teacher", "my bert", "--corpus", "a b.txt", "c.txt"]
    assert '--distil=--text_column "my text"' in cost
    assert distil[-2:] == ["--text_column", "my text"]
    assert glue[-2:] == ["--config", "x y.yaml"]
    for words in (cost, glue):
        assert 'my "$data' in words


@needs_make
@pytest.mark.parametrize(("data", "given"), [("hub", []), ("my hub", ["--data_dir", "my hub"])])
def test_only_the_word_hub_means_the_hub(tmp_path, data, given):
    """Prevents GLUE from the Hub in the place of a folder whose name holds that word."""
    _, _, glue = commands(tmp_path, DATA=data)
    assert glue[7:-2] == given


@pytest.mark.slow
def test_a_study_from_end_to_end(world, capsys):
    """Prevents parts that work alone and make no Table 4 together; run again, nothing is done."""
    out = world / "study"
    distil = ["--teacher", str(world / "bert"), "--corpus", str(world / "corpus.txt"),
              "--output_dir", str(out), "--ablation", "all", "--resume_from_checkpoint",
              *DISTIL.split(), "--max_steps", "3"]  # fmt: skip
    glue = ["--model", *(str(out / name) for name in ABLATIONS), "--data_dir",
            str(world / "glue"), "--results_dir", str(out / "results"), *GLUE.split()]  # fmt: skip
    for _ in range(2):
        assert run_command(PRETRAIN, distil) == 0
        assert run_command(run_glue.COMMAND, glue) == 0
        text = (out / "results" / "table4.md").read_text()
        changes = re.findall(r"\(study/[a-z-]+\) .*[+-][0-9.]+ \[.* to .*\] .* 2 of 9 \|", text)
        assert len(changes) == 4
    assert capsys.readouterr().out.count("complete, nothing to do") == 5
    said = cost(world, capsys, distil=f"{DISTIL} --max_steps 3")
    assert "5 are finished" in said
    assert runs(said) == [20, 0, 0]
