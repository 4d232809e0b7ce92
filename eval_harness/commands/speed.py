"""`python -m eval_harness speed`: times models side by side on STS-B's dev set, prints Table 3.

python -m eval_harness speed --model bert distilbert --random_weights --synthetic
"""

import sys
import tempfile
from pathlib import Path

from angels_share.cli import DONE, INTERRUPTED, TERMINATED, Command
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero
from eval_harness.commands.shared_flags import DATA_DIR, DATA_REVISION
from eval_harness.results.speed import write_session
from eval_harness.speed.bench_process import BenchProcess
from eval_harness.speed.request import BACKENDS, Request, requests
from eval_harness.speed.session import timed
from eval_harness.tables.write import write_by_name

_BENCH = "eval_harness.speed.bench:Bench"
_ONNX_BENCH = "eval_harness.speed.bench_onnx:OnnxBench"


def run(options: Options) -> int:
    """Time the models, save the session, print Table 3."""
    root = require_writable_folder(options.results_dir, "--results_dir").resolve()
    try:
        with tempfile.TemporaryDirectory() as scratch:  # of files that nobody keeps
            requested, setup = requests(options, Path(scratch))
            session = timed(requested, setup, _bench)
    except KeyboardInterrupt:
        return _stopped("interrupted", INTERRUPTED)
    except SystemExit:  # of a SIGTERM: see `run_command`
        return _stopped("terminated", TERMINATED)
    path = write_session(root, session)
    print(write_by_name(root)["table3"])  # noqa: T201
    sys.stderr.write(f"speed: {path}\n")
    return DONE


def _bench(request: Request) -> BenchProcess:
    return BenchProcess(request, _BENCH if request.onnx is None else _ONNX_BENCH)


def _stopped(how: str, status: int) -> int:
    """Report a stopped session, unsaved: its times can't be compared with another session's."""
    sys.stderr.write(f"eval_harness speed: {how}; times of a part of a session are not kept\n")
    return status


COMMAND = Command(
    name="eval_harness speed",
    summary="times models side by side on STS-B's dev set, and prints Table 3",
    flags=(
        Flag(
            "model",
            "models: short names, folders, Hub ids or a config.json; the first is the baseline",
            many=True,
            required=True,
            alias="model_name_or_path",
        ),
        Flag(
            "backend",
            "what computes the models: torch, or onnxruntime the files that `distil_trainer "
            "export` made beside them (with --random_weights they are made now)",
            default=["torch"],
            many=True,
            choices=BACKENDS,
        ),
        Flag(
            "random_weights",
            "random weights: speed doesn't depend on them (bert and distilbert then need no Hub)",
            bool,
        ),
        Flag(
            "synthetic", "random token ids with STS-B's sequence lengths, instead of its text", bool
        ),
        DATA_DIR,
        DATA_REVISION,
        Flag("max_seq_length", "maximum sequence length in tokens", int, 128, check=above_zero),
        Flag("pairs", "number of pairs, sampled with a fixed seed", int, 200, check=above_zero),
        Flag("full", "time the whole dev set, like the paper; fills the column of seconds", bool),
        Flag("repeats", "passes per configuration, models taking turns", int, 5, check=above_zero),
        Flag(
            "threads",
            "CPU thread counts to time [1 and all cores; 1 on a GPU]",
            int,
            many=True,
            check=above_zero,
        ),
        Flag(
            "batch_sizes",
            "batch sizes to time, besides 1",
            int,
            [8, 32],
            many=True,
            check=above_zero,
        ),
        Flag("device", "device to run on", default="cpu", choices=("cpu", "cuda")),
        Flag("bf16", "weights and arithmetic in bfloat16", bool),
        Flag("results_dir", "folder that results are saved to", default="results"),
    ),
    run=run,
    examples=(
        "python -m eval_harness speed --model bert distilbert",
        "python -m eval_harness speed --model bert distilbert --random_weights --synthetic",
        "python -m eval_harness speed --model my-sst2 --backend torch onnx onnx-int8",
        "python -m eval_harness speed --model my-teacher my-student --data_dir glue_data --full",
    ),
)
