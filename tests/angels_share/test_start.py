"""Where commands start: an old Python, missing packages, another project's distil_trainer."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
import types

import pytest
from places import ROOT

import distil_trainer
from angels_share import cli, start, training_flags
from angels_share.cli import Command, run_command
from angels_share.flags import Flag
from eval_harness.cli import command

# What an old Python reads before it hears that it is too old.
FIRST = (
    "run_glue.py", "run_squad_distill.py", "run_pretrain_distill.py", "angels_share/start.py",
    "angels_share/__init__.py", "eval_harness/__init__.py", "eval_harness/__main__.py",
)  # fmt: skip


@pytest.mark.parametrize("file", FIRST)
def test_an_old_python_can_read_what_it_runs_first(file):
    """Prevents a SyntaxError in place of the line that says which Python is needed."""
    ast.parse((ROOT / file).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_nothing_that_needs_a_new_python_is_imported_before_the_check():
    """Prevents an import at the top of the first module that an old Python fails on."""
    tree = ast.parse((ROOT / "angels_share" / "start.py").read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert {ast.unparse(node) for node in imported} == {
        "import sys", "from importlib import import_module", "from importlib.util import find_spec"
    }  # fmt: skip


def test_what_is_looked_for_is_what_is_declared():
    """Prevents a dependency that may be missing without a word about it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0].strip().replace("-", "_") for line in project["dependencies"]}
    imported = {{"pyyaml": "yaml", "scikit_learn": "sklearn"}.get(name, name) for name in names}
    assert set(start.PACKAGES) == imported
    assert project["requires-python"] == ">=" + ".".join(map(str, start.OLDEST))
    assert project["scripts"] == {
        name: f"angels_share.start:{name}"
        for name in (
            "run_pretrain_distill",
            "run_glue",
            "run_squad_distill",
            "distil_trainer",
            "eval_harness",
        )
    }
    assert all(callable(getattr(start, name)) for name in project["scripts"])


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 10, 13)])
def test_an_old_python_is_told_in_one_line(monkeypatch, capsys, version):
    """Prevents a SyntaxError out of the middle of a package."""
    monkeypatch.setattr(sys, "version_info", version)
    assert start.run_glue() == 2
    said = capsys.readouterr().err
    seen = ".".join(map(str, version[:2]))
    assert said.startswith(f"run_glue: needs Python 3.11 or newer, and {sys.executable} is {seen}:")
    assert said.count("\n") == 1


def without(monkeypatch, *packages):
    """Make packages look as if they weren't installed, to `import` and to find_spec."""
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)
    find = importlib.util.find_spec
    monkeypatch.setattr(start, "find_spec", lambda name: None if name in packages else find(name))


def test_missing_packages_are_named_with_what_to_type(monkeypatch):
    """Prevents a bare ModuleNotFoundError in the first minute."""
    assert start.lacking() == ""
    without(monkeypatch, "yaml")
    assert start.lacking().startswith(
        f"the package 'yaml' isn't installed for {sys.executable}: activate the environment "
    )
    without(monkeypatch, "torch", "yaml", "tqdm", "numpy")
    assert "4 packages (torch, numpy, yaml, ...) aren't installed for" in start.lacking()
    assert "python -m pip install ." in start.lacking()


def test_only_what_is_not_installed_is_called_so(monkeypatch):
    """Prevents a mistake of ours, or a package's, from sending people to pip."""
    for name in ("eval_harness.nowhere", "nupmy", "numpy.nowhere", "sys.nowhere", None):
        assert start.not_installed(ModuleNotFoundError("no", name=name)) == ""
    without(monkeypatch, "numpy")
    assert "'numpy'" in start.not_installed(ModuleNotFoundError("no", name="numpy.linalg"))


@pytest.mark.parametrize(("name", "status"), [("yaml", 2), ("nupmy", None), ("nupmy.x", None)])
def test_an_import_that_fails_before_there_is_a_command(monkeypatch, capsys, name, status):
    """Prevents an entry point that fails with a traceback, and one that hides a fault of ours."""
    broken = types.ModuleType("broken")

    def fail():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    broken.run_it = fail
    monkeypatch.setitem(sys.modules, "broken", broken)
    without(monkeypatch, "yaml")
    if status is None:
        with pytest.raises(ModuleNotFoundError):
            start.start("broken:run_it")
        return
    assert start.start("broken:run_it") == status
    assert capsys.readouterr().err.startswith(f"run_it: the package {name!r} isn't installed")


def test_an_import_that_fails_within_a_command(monkeypatch, capsys):
    """Prevents "failed: ModuleNotFoundError" and status 1 for what pip can mend."""

    def run(_options):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    failing = Command("a_command", "", (), run, ())
    assert run_command(failing, []) == 1, "it is installed, so the fault is ours"
    assert "failed: ModuleNotFoundError" in capsys.readouterr().err
    without(monkeypatch, "sklearn")
    assert run_command(failing, []) == 2
    assert capsys.readouterr().err.startswith("a_command: the package 'sklearn' isn't installed")


def test_training_does_not_begin_without_its_packages(monkeypatch, capsys, tmp_path):
    """Prevents a worker that finds, after the data were read, that there is no torch."""
    without(monkeypatch, "torch")
    monkeypatch.setattr(cli, "lacking", start.lacking)
    words = ["--model", str(tmp_path), "--results_dir", str(tmp_path / "results")]
    assert run_command(command("glue"), words) == 2
    assert "run_glue: the package 'torch' isn't installed for" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    light = Command("a_command", "", (Flag("x", ""),), lambda _: 0, ())
    assert run_command(light, []) == 0, "tables need no torch"


def test_help_all_without_transformers_says_what_is_missing(monkeypatch, capsys):
    """Prevents an AssertionError from the reader of TrainingArguments' source."""
    without(monkeypatch, "transformers")
    training_flags.training_flags.cache_clear()
    try:
        assert run_command(command("glue"), ["--help_all"]) == 2
    finally:
        training_flags.training_flags.cache_clear()
    assert "the package 'transformers' isn't installed" in capsys.readouterr().err


def test_ours_has_its_mark():
    """Prevents our own package from being taken for the other project's."""
    assert distil_trainer.PROJECT == "angels-share"
    assert start._other_project() == ""


@pytest.mark.parametrize("kind", ["other", "left over"])
def test_another_projects_distil_trainer(tmp_path, kind):
    """Prevents an ImportError out of a package of that name that pip installed from the index."""
    package = tmp_path / "distil_trainer"
    package.mkdir()
    if kind == "other":
        (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    (tmp_path / "angels_share").symlink_to(ROOT / "angels_share")
    (tmp_path / "eval_harness").symlink_to(ROOT / "eval_harness")
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "eval_harness", "tables"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    where = package / "__init__.py" if kind == "other" else package
    assert ended.stderr.startswith(f"eval_harness: {where}")
    assert ("pip uninstall distil-trainer" in ended.stderr) == (kind == "other")
    assert "install ours again: python -m pip install --force-reinstall" in ended.stderr


def test_a_python_without_any_package(tmp_path):
    """Prevents a traceback from `python run_glue.py` outside of the environment."""
    for script in ("run_glue.py", "run_pretrain_distill.py"):
        ended = subprocess.run(
            [sys.executable, "-S", ROOT / script, "--teacher", "x", "--model", "x"],
            cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == 2, ended.stderr
        program = script.removesuffix(".py")
        assert ended.stderr.startswith(f"{program}: {len(start.PACKAGES)} packages (torch, ")
        assert ended.stderr.count("\n") == 1
