"""The import graph of the packages, parsed from source: `python tests/makers/import_graph.py`.

Prints the number of modules in each folder, the wings from the top down with those that each
imports, and every violation: a cycle, or an import of a higher wing. Imports inside functions count
too.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("angels_share", "distil_trainer", "eval_harness")

WINGS = {
    "angels_share": ("angels_share",),
    "distil_trainer": (
        "__main__", "cli", "commands", "smaller", "pretrain", "chosen_student", "harness",
        "training", "objectives", "models", "data",
        "recipe",
    ),
    "eval_harness": (
        "__main__", "cli", "api", "metrics", "commands", "demo", "page", "report", "publish",
        "tables", "intervals", "rows", "speed", "sweep", "probe", "training", "results", "squad",
        "data", "runs", "tasks", "child_process",
    ),
}  # fmt: skip
"""Each package's wings, from the top down: a wing imports only itself and those below it."""


def files_of(package: str) -> list[Path]:
    """Return the modules of a package, including those of its sub-folders."""
    return sorted((ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    """Return the dotted name of a file; a folder's `__init__` is the folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_import_time_only: bool = False) -> set[str]:
    """Return the full names that a file imports, `package.module` and `package.module.name`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_import_time_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full, not relative"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def graph() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports."""
    paths = {module_of(path): path for package in PACKAGES for path in files_of(package)}
    return {name: (imports(path) & paths.keys()) - {name} for name, path in paths.items()}


def wing_of(module: str) -> tuple[str, str]:
    """Return the package of a module and its wing there; angels_share is one wing."""
    package, _, rest = module.partition(".")
    return package, package if package == "angels_share" else rest.partition(".")[0]


def upward(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Return every import of a wing above the importer's, as `importer -> imported`."""
    wrong = []
    for module, others in arrows.items():
        for other in others:
            (package, own), (other_package, theirs) = wing_of(module), wing_of(other)
            if package == other_package and own and theirs:
                order = WINGS[package]
                if order.index(theirs) < order.index(own):
                    wrong.append(f"{module} -> {other}")
    return sorted(wrong)


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the import cycles (Tarjan's strongly connected components of two or more modules)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in arrows[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:  # the group's first module; the others follow it on the stack
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for name in arrows:
        if name not in index:
            visit(name)
    return found


def layers(arrows: Mapping[str, Iterable[str]]) -> int:
    """Return the length of the longest chain of imports; there must be no cycles."""
    known: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in known:
            known[name] = 1 + max(map(depth, arrows[name]), default=0)
        return known[name]

    return max(map(depth, arrows))


def folders() -> dict[str, int]:
    """Return the number of modules in each folder, without `__init__` and `__main__`."""
    counts: dict[str, int] = defaultdict(int)
    for package in PACKAGES:
        for path in files_of(package):
            if not path.stem.startswith("__"):
                counts[path.parent.relative_to(ROOT).as_posix()] += 1
    return dict(counts)


def main() -> None:
    """Print the graph and its violations."""
    arrows = graph()
    print("modules by folder:")
    for folder, count in sorted(folders().items()):
        print(f"  {count:3} {folder}")
    between: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, others in arrows.items():
        for other in others:
            if wing_of(other) != wing_of(module):
                package, wing = wing_of(other)
                between[wing_of(module)].add(wing if package == wing_of(module)[0] else package)
    for package in PACKAGES:
        print(f"{package}, from the top down:")
        for wing in WINGS[package]:
            print(f"  {wing:10} -> {', '.join(sorted(between[package, wing])) or 'none'}")
    wrong, cycles = upward(arrows), circles(arrows)
    print(f"circles: {len(cycles)}", *cycles, sep="\n  ")
    print(f"arrows upwards: {len(wrong)}", *wrong, sep="\n  ")
    if not cycles:
        print(f"longest chain of imports: {layers(arrows)} modules")


if __name__ == "__main__":
    main()
