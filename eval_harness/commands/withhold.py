"""`python -m eval_harness withhold`: a results folder made ready to be published.

python -m eval_harness withhold --results_dir results/study
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.flags import Flag, Options
from eval_harness.report.leaderboard import leaderboard
from eval_harness.results import probes
from eval_harness.results.record import TaskResult
from eval_harness.results.store import RUNS, InvalidResult, find, read_any_predictions, withhold
from eval_harness.tables.compared import keep_scores
from eval_harness.tables.probed import keep_probe
from eval_harness.tables.write import load_results

_OF_EXAMPLES = (".parquet", ".tmp")


def run(options: Options) -> int:
    """Keep what tables, report and `compare` need of per-example files, and remove these.

    Raises:
        UserError: there is no such folder, or a per-example file isn't that of its result.
    """
    root = Path(options.results_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"--results_dir {root}: not a folder; name one that has results")
    try:
        runs, measured = withhold_examples(root)
    except InvalidResult as error:
        raise UserError(f"{error.path}: {error.reason}") from error
    print(  # noqa: T201
        f"{root}: removed the per-example files of {runs} runs and {measured} probes, and their "
        "records say so; intervals/ keeps what tables, the report and differences need of them"
    )
    return DONE


def withhold_examples(root: Path) -> tuple[int, int]:
    """Compute what is needed of per-example files, then remove them.

    Returns:
        The number of files of runs, and of probes.

    Raises:
        UserError: a result doesn't count, or a file is no result's. Nothing is removed then.
        RunFailed: there is no room for what is to be kept. Nothing is removed then.
        InvalidResult: a file isn't that of its result.
    """
    found = find(root)
    ours = load_results(found, root)
    leaderboard(ours.rows, ours.speeds, root)
    keep_scores(ours.rows, root)
    if damaged := [*found.invalid, *ours.probed.invalid]:
        raise UserError(f"{root}: {damaged[0]}; mend or remove it: nothing was removed")
    runs = [result for result in found.results if not result.withheld]
    measured = [result for result in probes.read_all(root) if not result.withheld]
    for result in runs:  # all before the first is removed
        read_any_predictions(root, result)
    for probe in measured:
        keep_probe(root, probe)
    left = _left_over(root, found.results)
    if others := _others(root, runs, measured, left):
        raise UserError(f"{others[0]}: no result names it: remove it; nothing was removed")
    for result in runs:
        withhold(root, result)
    for probe in measured:
        probes.withhold(root, probe)
    for path in left:
        path.unlink()
    return len(runs), len(measured)


def _left_over(root: Path, results: Sequence[TaskResult]) -> list[Path]:
    """Return files of withheld results which an interrupted `withhold` hadn't removed yet."""
    withheld = [
        ((root / RUNS / each.key).parent, each.withheld) for each in results if each.withheld
    ]
    withheld += [
        ((root / probes.PROBES / each.key).parent, each.withheld)
        for each in probes.read_all(root)
        if each.withheld
    ]
    paths = ((folder / str(file["name"]), file["sha256"]) for folder, file in withheld)
    return [
        path
        for path, sha256 in paths
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    ]


def _others(
    root: Path,
    runs: Sequence[TaskResult],
    measured: Sequence[probes.ProbeResult],
    left: Sequence[Path],
) -> list[Path]:
    """Return the files beside results that may hold examples, and that no result names."""
    named = {
        (root / RUNS / each.key).with_name(str(each.saved_predictions["name"])) for each in runs
    }
    named |= {
        (root / probes.PROBES / each.key).with_name(str(each.saved_examples["name"]))
        for each in measured
    }
    named |= set(left)
    found = (
        path for folder in (RUNS, probes.PROBES) for path in sorted((root / folder).rglob("*"))
    )
    return [path for path in found if path.suffix in _OF_EXAMPLES and path not in named]


COMMAND = Command(
    name="eval_harness withhold",
    summary="removes per-example files, which hold labels, from results to be published",
    flags=(Flag("results_dir", "folder of results", default="results"),),
    run=run,
    examples=("python -m eval_harness withhold --results_dir results/study",),
)
