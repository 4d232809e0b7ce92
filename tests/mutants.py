"""Mutation testing: break the code in small ways, one at a time, and see whether a test fails.

`make mutants MUTANTS=400` draws that many mutants by a fixed seed from all those of `MODULES`, and
runs the tests of each on a copy of the tree. What was done is kept in `.mutants/`; a rerun goes on
there. A mutant that no test can tell from the code, since it does the same, is listed with the
reason in `tests/equivalent_mutants.json`.

Two libraries were tried first. mutmut 3.8 changes only the bodies of functions without decorators
other than staticmethod and classmethod: no constants and tables of a module, no properties.
cosmic-ray 8.7 drops neither statements nor arguments. Neither draws a sample by a seed, or chooses
the tests by the module.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import FrameType

import pytest

ROOT = Path(__file__).parents[1]
STATE = ROOT / ".mutants"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.json")

_D, _E = "tests/distil_trainer", "tests/eval_harness"
_TRAINER = f"{_D}/training/test_trainer.py"
_RESUME = f"{_D}/training/test_resume.py"
_INVARIANCE = f"{_D}/training/test_invariance.py"
_TABLES = f"{_E}/tables"
MODULES: dict[str, tuple[str, ...]] = {
    "distil_trainer/objectives/vocab_head.py": (f"{_D}/objectives/test_vocab_head.py", _TRAINER),
    "distil_trainer/objectives/losses.py": (
        f"{_D}/objectives/test_losses.py",
        f"{_D}/objectives/test_vocab_head.py",
        _TRAINER,
    ),
    "distil_trainer/objectives/language_model.py": (
        _TRAINER,
        _INVARIANCE,
        f"{_D}/objectives",
        f"{_D}/training/test_given_batches.py",
    ),
    "distil_trainer/objectives/task.py": (
        f"{_D}/objectives/test_task.py",
        f"{_D}/objectives/test_task_rules.py",
        _TRAINER,
    ),
    "distil_trainer/data/masking.py": (f"{_D}/data/test_masking.py", _INVARIANCE),
    "distil_trainer/data/batches.py": (
        f"{_D}/data/test_batches.py",
        f"{_D}/data/test_sequences.py",
        _INVARIANCE,
        _RESUME,
    ),
    "distil_trainer/models/student.py": (f"{_D}/models",),
    "distil_trainer/training/checkpoint.py": (_RESUME, _TRAINER),
    "eval_harness/tasks/metrics.py": (f"{_E}/tasks", f"{_E}/intervals/test_bootstrap.py"),
    "eval_harness/squad/metrics.py": (f"{_E}/squad",),
    "eval_harness/squad/answers.py": (f"{_E}/squad", f"{_E}/training/test_question_answering.py"),
    "eval_harness/intervals/bootstrap.py": (f"{_E}/intervals/test_bootstrap.py", _TABLES),
    "eval_harness/rows/grouping.py": (f"{_E}/rows/test_grouping.py", _TABLES),
    "eval_harness/tables/comparison.py": (_TABLES,),
    "eval_harness/tables/cells.py": (_TABLES,),
    "eval_harness/tables/table1.py": (f"{_E}/tables/test_table1.py", _TABLES),
    "eval_harness/tables/table4.py": (f"{_E}/tables/test_table4.py", _TABLES),
    "eval_harness/results/store.py": (f"{_E}/results", f"{_E}/sweep/test_scheduler.py"),
    "eval_harness/sweep/leases.py": (f"{_E}/sweep/test_leases.py", f"{_E}/sweep"),
}
"""The tests that must notice a change of a module, the quickest first: one failure is enough."""


@dataclass(frozen=True)
class Mutant:
    """One small change of one module, as a replacement of a piece of its text."""

    module: str
    line: int
    start: int
    end: int
    was: str
    becomes: str
    text: str
    """The line that it begins in."""
    says: str = ""
    nth: int = 1
    """Which it is of those of the same name: the same line may occur twice."""

    @property
    def name(self) -> str:
        """What is changed, in words that hold while other lines change."""
        change = self.says or f"`{_short(self.was)}` becomes `{_short(self.becomes)}`"
        return f"{self.module}: `{self.text}`: {change}"

    @property
    def place(self) -> str:
        """What tells it from all others, and stays while other lines change."""
        return f"{self.name} #{self.nth}"

    def applied(self, source: str) -> str:
        """Return the module's text with the change."""
        return source[: self.start] + self.becomes + source[self.end :]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else f"{text[:67]}..."


# What can be changed. Each function yields replacements of a node's text.

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
_OPERATORS = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*",
    ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&", ast.LShift: ">>", ast.RShift: "<<",
    ast.BitXor: "&",
}  # fmt: skip


def _in_brackets(node: ast.AST) -> str:
    return f"({ast.unparse(node)})"


def _changes(node: ast.AST) -> Iterator[str | tuple[str, str]]:  # noqa: C901  (one case for each kind of node)
    match node:
        case ast.Compare(left=left, ops=operators, comparators=others):
            for place, operator in enumerate(operators):
                words = [_in_brackets(left)]
                for number, (each, other) in enumerate(zip(operators, others, strict=True)):
                    same = _SYMBOLS[type(each)]
                    words += [_COMPARISONS[type(operator)] if number == place else same]
                    words += [_in_brackets(other)]
                yield f"({' '.join(words)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            yield f"({_in_brackets(left)} {_OPERATORS[type(operator)]} {_in_brackets(right)})"
        case ast.BoolOp(op=operator, values=values):
            word = " or " if isinstance(operator, ast.And) else " and "
            yield f"({word.join(map(_in_brackets, values))})"
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield _in_brackets(operand)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            parts = map(_in_brackets, (orelse, test, body))
            yield "({} if {} else {})".format(*parts)
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value)):
            yield str(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(2 * value or 1.0)
        case ast.Constant(value=str(value)):
            yield repr("" if value else "mutant")
        case ast.Call(keywords=keywords):
            for dropped in keywords:
                rest = [each for each in keywords if each is not dropped]
                text = ast.unparse(ast.Call(node.func, node.args, rest))
                yield text, f"without `{ast.unparse(dropped)}`"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.Delete():
            yield "pass"
        case ast.AugAssign(target=target, value=value):
            yield f"{ast.unparse(target)} = {ast.unparse(value)}"
        case ast.Return(value=ast.AST() as value) if not _is_none(value):
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"


_SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}  # fmt: skip


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs: no docstrings, annotations, decorators, patterns, parts of f-strings."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            is_left = is_text or isinstance(child, ast.JoinedStr | ast.pattern)
            if not isinstance(child, ast.AST) or is_left:
                continue
            yield child
            yield from _nodes(child)


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:  # ast counts columns in bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found = []
    for node in _nodes(ast.parse(source)):
        if not hasattr(node, "lineno"):
            continue
        start = offset(node.lineno, node.col_offset)
        end = offset(node.end_lineno, node.end_col_offset)
        for change in _changes(node):
            text, says = change if isinstance(change, tuple) else (change, "")
            line = lines[node.lineno - 1].strip()
            was = source[start:end]
            mutant = Mutant(module, node.lineno, start, end, was, text, line, says)
            found.append(mutant)
    seen: Counter[str] = Counter()
    numbered = []
    for mutant in sorted(set(found), key=lambda each: (each.start, each.end, each.becomes)):
        seen[mutant.name] += 1
        numbered.append(replace(mutant, nth=seen[mutant.name]))
    return numbered


def drawn(root: Path, number: int, seed: int) -> tuple[list[Mutant], int]:
    """Return `number` mutants drawn by a seed from all those of `MODULES`, and how many those are.

    A larger number begins with what a smaller one draws, and a change of some lines of the code
    changes the sample in those lines alone: each mutant has a lot of its own.
    """
    everything = [
        mutant for module in MODULES for mutant in mutants_of(module, (root / module).read_text())
    ]
    return sorted(everything, key=lambda each: _lot(seed, each))[:number], len(everything)


def _lot(seed: int, mutant: Mutant) -> bytes:
    return hashlib.sha256(f"{seed} {mutant.place}".encode()).digest()


# Running


def copied(root: Path, folder: Path) -> Path:
    """Copy what the tests need, so that nothing is ever changed in place."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "demo", "first", "shared")
    copy = folder / "tree"
    shutil.copytree(root, copy, ignore=skipped, symlinks=True)
    return copy


def passes(
    copy: Path, tests: Sequence[str], seconds: float, log: Path, plugins: Sequence[object] = ()
) -> tuple[bool, str]:
    """Run tests in a process forked from this one; return whether all passed, and which failed."""
    pid = os.fork()
    if pid == 0:
        _run_tests(copy, tests, log, plugins)
    end = time.monotonic() + seconds
    done = status = 0
    try:
        while not done and time.monotonic() < end:
            done, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0 if done else 0.05)
    finally:
        if not done:  # too late, or Ctrl-C
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not done:
        return False, f"no end after {seconds:.0f} s"
    code = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace").splitlines()
    failed = [line for line in said if line.startswith(("FAILED", "ERROR"))]
    return code == 0, failed[0] if failed else f"status {code}"


def _run_tests(copy: Path, tests: Sequence[str], log: Path, plugins: Sequence[object]) -> None:
    """Become a process of its own that runs the tests, and end."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTHONPATH"] = str(copy)
    code = 99
    try:
        quiet = ("-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not slow")
        code = int(pytest.main([*quiet, *tests], plugins))
    finally:
        sys.stdout.flush()
        os._exit(code)


class _Lines:
    """Notes which lines of a module each test runs in its own process, and how long it takes."""

    def __init__(self, module: Path, notes: Path) -> None:
        self._file, self._notes = str(module), notes
        self._lines: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace a test with its fixtures."""
        lines: set[int] = set()

        def of_line(frame: FrameType, event: str, _: object) -> Callable | None:
            lines.add(frame.f_lineno)
            return of_line

        def of_call(frame: FrameType, event: str, _: object) -> Callable | None:
            return of_line if frame.f_code.co_filename == self._file else None

        started = time.monotonic()
        threading.settrace(of_call)
        sys.settrace(of_call)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            self._lines[item.nodeid] = sorted(lines)
            self._seconds[item.nodeid] = time.monotonic() - started

    def pytest_sessionfinish(self) -> None:
        """Write down what was seen, the quickest test first."""
        quickest = sorted(self._lines, key=lambda name: self._seconds[name])
        self._notes.write_text(json.dumps({name: self._lines[name] for name in quickest}))


def tests_of_lines(copy: Path, module: str, state: Path, log: Path) -> dict[str, list[int]]:
    """Return the lines of a module that each of its tests runs, the quickest test first."""
    notes = state.parent / f"lines-{_hash_of(copy, module, '')}.json"
    if not notes.exists():
        for tests in MODULES[module]:
            part = log.with_name(f"lines-{len(list(log.parent.glob('lines-*')))}")
            passes(copy, [tests], 3600, log, [_Lines(copy / module, part)])
        found: dict[str, list[int]] = {}
        for part in sorted(log.parent.glob("lines-*")):
            found |= json.loads(part.read_text())
            part.unlink()
        partial_notes = notes.with_suffix(f".{os.getpid()}")
        partial_notes.write_text(json.dumps(found))
        partial_notes.replace(notes)
    return json.loads(notes.read_text())


def _preload() -> None:
    """Import once what each run of the tests would import anew; none of it is mutated."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    sys.dont_write_bytecode = True  # a change within the same second would go unnoticed
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch  # noqa: F401
    import torchmetrics.functional.text  # noqa: F401
    from transformers import BertForMaskedLM, DistilBertForMaskedLM, Trainer  # noqa: F401


def _hash_of(root: Path, module: str, by: str) -> str:
    """Hash a module and what killed a mutant: a kill by a test that changed since says nothing.

    Without a failed test (a survivor, no end) all tests of the module count.
    """
    read = [(root / module).read_bytes()]
    file, _, test = by.removeprefix("FAILED ").removeprefix("ERROR ").partition("::")
    killer = re.split(r"[\[ ]", test)[0]
    if killer and (text := _function(root / file, killer)) is not None:
        read.append(text.encode())
    else:
        for tests in MODULES[module]:
            place = root / tests
            files = sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
            read += [each.read_bytes() for each in files]
    return hashlib.sha256(b"".join(read)).hexdigest()[:16]


def _function(file: Path, name: str) -> str | None:
    """Return the text of a function of a file; None if there is none of that name."""
    try:
        source = file.read_text()
    except OSError:
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_source_segment(source, node)
    return None


def run(
    root: Path, number: int, seed: int, state: Path, *, seconds: float, jobs: int, say: Callable
) -> None:
    """Run the mutants without an outcome, and again those that survived and aren't equivalent.

    Args:
        root: the tree.
        number: how many are drawn.
        seed: of the drawing.
        state: where the outcomes are kept, a line of JSON each.
        seconds: how long the tests of one module may take beyond three times what they take
            without a change.
        jobs: how many mutants run at a time, each on a copy of its own.
        say: what prints a line.
    """
    chosen, total = drawn(root, number, seed)
    known = {
        each["place"]
        for each in outcomes(state, root)
        if not each["survives"] or each["name"] in equivalents()
    }
    wanted = [mutant for mutant in chosen if mutant.place not in known]
    say(f"{number} of {total} mutants, {number - len(wanted)} known")
    _preload()
    children = []
    for job in range(jobs):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _run_some(root, wanted[job::jobs], state, seconds, say)
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in children):
        raise SystemExit(2)


def _run_some(
    root: Path, mutants: list[Mutant], state: Path, seconds: float, say: Callable
) -> None:
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy, log = copied(root, Path(folder)), Path(folder) / "log"
        whole = copied(root, Path(folder) / "whole")

        @cache
        def allowed(tests: str) -> float:
            """Return how long tests may take; they must pass without a change."""
            started = time.monotonic()
            passed, failed = passes(whole, [tests], 1800, log)
            if not passed:
                say(f"{tests}: fails without a change: {failed}")
                raise RuntimeError(tests)
            return seconds + 3 * (time.monotonic() - started)

        @cache
        def lines_of(module: str) -> dict[str, list[int]]:
            return tests_of_lines(whole, module, state, log)

        for count, mutant in enumerate(mutants, 1):
            path = copy / mutant.module
            source = path.read_text()
            compile(mutant.applied(source), mutant.place, "exec", dont_inherit=True)
            path.write_text(mutant.applied(source))
            try:
                survives, by = True, ""
                # Those that run the changed line first; then all, for what runs it elsewhere.
                if close := close_tests(mutant, lines_of(mutant.module)):
                    patience = sum(map(allowed, MODULES[mutant.module]))
                    survives, by = passes(copy, close, patience, log)
                for tests in MODULES[mutant.module] if survives else ():
                    survives, by = passes(copy, [tests], allowed(tests), log)
                    if not survives:
                        break
            finally:
                path.write_text(source)
            by = "" if survives else by
            source_hash = _hash_of(copy, mutant.module, by)
            outcome = {
                "place": mutant.place, "name": mutant.name, "line": mutant.line,
                "survives": survives, "by": by, "source": source_hash,
            }  # fmt: skip
            with state.open("a") as file:
                file.write(json.dumps(outcome) + "\n")
            say(f"{count}/{len(mutants)} {'SURVIVES' if survives else 'killed'} {mutant.name}")


def close_tests(mutant: Mutant, lines_of: dict[str, list[int]]) -> list[str]:
    """Return the tests that run a line of what a mutant changes."""
    changed = range(mutant.line, mutant.line + mutant.was.count("\n") + 1)
    return [test for test, lines in lines_of.items() if any(line in changed for line in lines)]


def outcomes(state: Path, root: Path) -> list[dict]:
    """Return what is known of the mutants of a tree's modules as they are now, the last of each."""
    hash_of = cache(partial(_hash_of, root))
    lines = state.read_text().splitlines() if state.exists() else []
    found = [each for each in map(json.loads, lines) if _module_of(each) in MODULES]
    current = [e for e in found if e["source"] == hash_of(_module_of(e), e["by"])]
    return list({each["place"]: each for each in current}.values())


def _module_of(outcome: dict) -> str:
    return outcome["place"].partition(":")[0]


def equivalents() -> dict[str, str]:
    """Return the mutants that do what the code does, with the reason."""
    return json.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}


def table(found: list[dict], equivalent: dict[str, str], drawn_of: str) -> str:
    """Return the outcomes as Markdown: a row per module, then each survivor."""
    kinds: dict[str, Counter] = {}
    for each in found:
        of_module = kinds.setdefault(_module_of(each), Counter())
        kind = "survived" if each["survives"] else "killed"
        of_module["equivalent" if each["survives"] and each["name"] in equivalent else kind] += 1
    total = sum(kinds.values(), Counter())
    counted = total["killed"] + total["survived"]
    share = f"{100 * total['killed'] / counted:.1f} %" if counted else "none"
    rows = [*sorted(kinds.items()), ("all", total)]
    lines = [
        f"{drawn_of}. Killed of the non-equivalent: {share}.",
        "",
        "| module | killed | survived | equivalent |",
        "|---|---|---|---|",
        *(f"| {name} | {n['killed']} | {n['survived']} | {n['equivalent']} |" for name, n in rows),
        "",
    ]
    for each in found:
        if each["survives"]:
            why = equivalent.get(each["name"])
            lines.append(f"- {each['name']}, line {each['line']}: {why or 'SURVIVED'}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the command; the status is 1 if fewer than 95 % of the non-equivalent are killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--mutants", type=int, default=400, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=13, help="of the drawing")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree (it is copied)")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of what is known")
    parser.add_argument("--seconds", type=float, default=60, help="patience beyond 3 x normal")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time")
    parser.add_argument("--table", action="store_true", help="only print the table")
    given = parser.parse_args()
    root, folder = given.root.resolve(), given.state.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"seed-{given.seed}.jsonl"
    if not given.table:
        run(root, given.mutants, given.seed, state, seconds=given.seconds, jobs=given.jobs,
            say=lambda line: print(line, flush=True))  # fmt: skip
    chosen, total = drawn(root, given.mutants, given.seed)
    places = {mutant.place for mutant in chosen}
    found = [each for each in outcomes(state, root) if each["place"] in places]
    equivalent = equivalents()
    text = table(
        found, equivalent, f"{len(found)} of {total} mutants, drawn with seed {given.seed}"
    )
    state.with_suffix(".md").write_text(text)
    print(text)
    killed = sum(not each["survives"] for each in found)
    counted = sum(not (each["survives"] and each["name"] in equivalent) for each in found)
    return int(len(found) < len(chosen) or killed < 0.95 * counted)


if __name__ == "__main__":
    sys.exit(main())
