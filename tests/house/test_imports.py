"""Who may import whom: the walls of the house, read from the imports of the tree."""

import ast
import subprocess
import sys
import tomllib

import import_graph
import pytest
from import_graph import PACKAGES, files_of, imports, module_of
from places import ROOT

SCRIPTS = ("run_glue.py", "run_pretrain_distill.py", "run_squad_distill.py")
HEAVY = {"torch", "transformers", "datasets", "accelerate", "evaluate"}
WITH_TORCH = (
    "eval_harness.training",
    "eval_harness.metrics",  # no torch of its own, but the library evaluate
    "eval_harness.speed.bench",
    "eval_harness.page.answers",
    "eval_harness.probe.measure",
    "eval_harness.probe.session",
)
"""All of the harness's torch."""
TORCH_FREE = sorted({
    "distil_trainer.cli",
    "distil_trainer.commands.export",
    "distil_trainer.commands.prune",
    "distil_trainer.recipe",
    "distil_trainer.training.honoured",
    "eval_harness.speed.bench_process",
    *(name for package in ("angels_share", "eval_harness")
      for name in map(module_of, files_of(package)) if not name.startswith(WITH_TORCH)),
})  # fmt: skip
# Imported by what we import: Trainer needs accelerate, the exporter onnxscript, and pandas
# writes markdown through tabulate.
NEEDED_BY_OTHERS = {"accelerate", "onnxscript", "tabulate"}
# What Python imports, where pip calls it something else.
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub",
               "onnx-ir": "onnx_ir"}  # fmt: skip
MOST_MODULES = 20


def reached_from(module, seen=None):
    """The packages that importing a module of ours brings in, through ours and at import time."""
    seen = seen if seen is not None else set()
    path = ROOT / (module.replace(".", "/") + ".py")
    if module in seen or not path.exists():
        return set()
    seen.add(module)
    direct = imports(path, at_import_time_only=True)
    tops = {name.split(".")[0] for name in direct} - set(PACKAGES)
    return tops.union(*(reached_from(name, seen) for name in direct), set())


@pytest.mark.parametrize(
    ("package", "may_import"),
    [
        ("angels_share", {"angels_share"}),
        ("distil_trainer", {"distil_trainer", "angels_share"}),
        ("eval_harness", {"eval_harness", "angels_share"}),
    ],
)
def test_packages_import_only_whom_they_may(package, may_import):
    """Prevents the trainer from growing into the harness, or either into what they share."""
    for path in files_of(package):
        ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert ours <= may_import, f"{path} imports {ours - may_import}"


def test_no_wing_imports_upwards():
    """Prevents a wing that can't be read without the ones that stand on it."""
    assert import_graph.upward(import_graph.graph()) == []


def test_no_imports_in_a_circle():
    """Prevents two modules of which neither can be understood, or imported, first."""
    assert import_graph.circles(import_graph.graph()) == []


def test_the_graph_sees_what_it_is_there_for():
    """Prevents a check that passes whatever the imports are."""
    upwards = {"eval_harness.tasks.registry": {"eval_harness.cli"}, "eval_harness.cli": set()}
    assert import_graph.upward(upwards) == ["eval_harness.tasks.registry -> eval_harness.cli"]
    ring = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert import_graph.circles(ring) == [["a", "b", "c"]]


def test_every_module_lies_in_a_wing():
    """Prevents a folder that no rule is about, and rooms that are searched one by one."""
    for name in import_graph.graph():
        package, wing = import_graph.wing_of(name)
        assert not wing or wing in import_graph.WINGS[package], name
    assert max(import_graph.folders().values()) <= MOST_MODULES


def test_the_graph_can_be_printed():
    """Prevents a script that nobody can run any more."""
    script = ROOT / "tests" / "makers" / "import_graph.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "circles: 0" in printed.stdout
    assert "arrows upwards: 0" in printed.stdout


@pytest.mark.parametrize("module", TORCH_FREE)
def test_light_modules_reach_nothing_heavy(module):
    """Prevents seconds of imports before a table, a help text or an error."""
    assert not reached_from(module) & HEAVY


def test_light_modules_are_those_of_sub_folders_too():
    """Prevents a check of the top folder alone, which holds next to nothing."""
    assert "eval_harness.tables.write" in TORCH_FREE
    assert "eval_harness.sweep.scheduler" in TORCH_FREE
    assert len(TORCH_FREE) > 80


def test_tables_need_no_statistics():
    """Prevents `tables` from paying for scikit-learn and scipy, which it has no use for."""
    assert not reached_from("eval_harness.tables.write") & {"sklearn", "scipy"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_root_scripts_only_call_an_entry_point(script):
    """Prevents logic that the installed console command would lack."""
    tree = ast.parse((ROOT / script).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.For))]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entry = project["scripts"][script.removesuffix(".py")].replace(":", ".")
    assert entry in imports(ROOT / script)


def test_dependencies_are_exactly_what_is_imported():
    """Prevents a dependency that nothing uses, and an import that nobody declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = ("export", "report", "ray", "slurm")
    lines = [*project["dependencies"], *(line for name in optional for line in extras[name])]
    declared = {line.split(">")[0].strip() for line in lines}
    modules = {IMPORTED_AS.get(name, name) for name in declared}
    ours = [path for package in (*PACKAGES, "tests") for path in files_of(package)]
    used = {name.split(".")[0] for path in ours for name in imports(path)}
    assert modules - NEEDED_BY_OTHERS <= used, f"nothing imports {modules - used}"
    in_packages = {
        name.split(".")[0]
        for package in PACKAGES
        for path in files_of(package)
        for name in imports(path)
    }
    third_party = in_packages - set(sys.stdlib_module_names) - set(PACKAGES)
    assert third_party <= modules, f"not declared: {third_party - modules}"
