"""`python -m eval_harness speed`: times models side by side on STS-B's dev set, prints Table 3.

python -m eval_harness speed --model bert distilbert --random_weights --synthetic
"""

import sys

from angels_share.cli import DONE, INTERRUPTED, TERMINATED, Command
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero
from eval_harness.results.speed import write_session
from eval_harness.speed.bench_process import BenchProcess
from eval_harness.speed.request import requests
from eval_harness.speed.session import timed
from eval_harness.tables.write import write_by_name

_BENCH = "eval_harness.speed.bench:Bench"


def run(options: Options) -> int:
    """Time the models, save the session, print Table 3."""
    root = require_writable_folder(options.results_dir, "--results_dir").resolve()
    requested, setup = requests(options)
    try:
        session = timed(requested, setup, lambda request: BenchProcess(request, _BENCH))
    except KeyboardInterrupt:
        return _stopped("interrupted", INTERRUPTED)
    except SystemExit:  # of a SIGTERM: see `run_command`
        return _stopped("terminated", TERMINATED)
    path = write_session(root, session)
    print(write_by_name(root)["table3"])  # noqa: T201
    sys.stderr.write(f"speed: {path}\n")
    return DONE


def _stopped(how: str, status: int) -> int:
    """Half a session is of no use: its times can't be compared with another's."""
    sys.stderr.write(f"eval_harness speed: {how}; times of a part of a session are not kept\n")
    return status


COMMAND = Command(
    name="eval_harness speed",
    summary="times models side by side on STS-B's dev set, and prints Table 3",
    flags=(
        Flag(
            "model",
            "models: short names, folders, Hub ids, or a config.json; all against the first",
            many=True,
            required=True,
            alias="model_name_or_path",
        ),
        Flag(
            "random_weights",
            "read no weights: time doesn't depend on them (bert and distilbert then need no Hub)",
            bool,
        ),
        Flag(
            "synthetic", "random ids of the lengths of STS-B's dev set, instead of its text", bool
        ),
        Flag("data_dir", "a folder of GLUE's own TSVs, or of parquet, csv or json [the Hub]"),
        Flag("data_revision", "the commit of the data set on the Hub [the newest]"),
        Flag("max_seq_length", "tokens that are read", int, 128, check=above_zero),
        Flag("pairs", "so many pairs, drawn with a fixed seed", int, 200, check=above_zero),
        Flag("full", "the whole dev set, as the paper did: fills the column of seconds", bool),
        Flag("repeats", "passes of each kind, the models in turn", int, 5, check=above_zero),
        Flag(
            "threads",
            "numbers of threads [1 and all cores; on a GPU 1]",
            int,
            many=True,
            check=above_zero,
        ),
        Flag(
            "batch_sizes",
            "pairs at once, besides one by one",
            int,
            [8, 32],
            many=True,
            check=above_zero,
        ),
        Flag("device", "what computes", default="cpu", choices=("cpu", "cuda")),
        Flag("bf16", "weights and products in bfloat16", bool),
        Flag("results_dir", "where results are kept", default="results"),
    ),
    run=run,
    examples=(
        "python -m eval_harness speed --model bert distilbert",
        "python -m eval_harness speed --model bert distilbert --random_weights --synthetic",
        "python -m eval_harness speed --model my-teacher my-student --data_dir glue_data --full",
    ),
)
