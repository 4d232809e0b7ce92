"""Who may know whom: the walls of the house, read from the imports of the tree."""

import ast
import sys
import tomllib

import pytest
from places import ROOT

PACKAGES = ("angels_share", "distil_trainer", "eval_harness")
SCRIPTS = ("run_glue.py", "run_pretrain_distill.py", "run_squad_distill.py")
WITH_TORCH = {
    "checkpoints", "encoding", "fine_tuner", "judge", "provenance", "runner", "speed_bench",
    "squad_judge", "text_judge",
}  # fmt: skip
EVAL_ROOMS = {path.stem for path in (ROOT / "eval_harness").glob("*.py")} - WITH_TORCH
TORCH_FREE = {
    *(f"angels_share.{path.stem}" for path in (ROOT / "angels_share").glob("*.py")),
    *(f"eval_harness.{room}" for room in EVAL_ROOMS),
    *(f"distil_trainer.{room}" for room in ("cli", "recipe")),
}
HEAVY = {"torch", "transformers", "datasets", "accelerate", "evaluate"}
# What pip calls it, where that differs from what Python imports.
# Imported by what we import: Trainer doesn't start without accelerate, and pandas writes markdown
# through tabulate.
NEEDED_BY_OTHERS = {"accelerate", "tabulate"}
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}


def imports(path, *, at_import_time_only=False):
    """The full names of the modules that a file imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if at_import_time_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files_of(package):
    return sorted((ROOT / package).rglob("*.py"))


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
    ("package", "may_know"),
    [
        ("angels_share", {"angels_share"}),
        ("distil_trainer", {"distil_trainer", "angels_share"}),
        ("eval_harness", {"eval_harness", "angels_share"}),
    ],
)
def test_packages_know_only_whom_they_may(package, may_know):
    """Prevents the trainer from growing into the harness, or either into what they share."""
    for path in files_of(package):
        ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert ours <= may_know, f"{path} imports {ours - may_know}"


@pytest.mark.parametrize("module", sorted(TORCH_FREE))
def test_light_rooms_reach_nothing_heavy(module):
    """Prevents seconds of imports before a table, a help text or an error."""
    assert not reached_from(module) & HEAVY


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
    lines = [*project["dependencies"], *project["optional-dependencies"]["report"]]
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
