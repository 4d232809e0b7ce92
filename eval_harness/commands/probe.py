"""`python -m eval_harness probe`: language models before any fine-tuning; prints Table 0.

python -m eval_harness probe --model my-distil --teacher bert --text held-out.txt
"""

from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero, is_seed
from eval_harness.commands.shared_flags import DATA_DIR
from eval_harness.probe.request import Request, Subject, request_of
from eval_harness.results.probes import Shown, read, read_examples, write_shown
from eval_harness.results.store import InvalidResult, NewerResult
from eval_harness.tables.formats import FORMATS
from eval_harness.tables.write import write_by_name


def run(options: Options) -> int:
    """Measure what has no result yet, and print Table 0."""
    root = require_writable_folder(options.results_dir, "--results_dir").resolve()
    request = request_of(options)
    always = options.rerun == "always"
    missing = [
        (subject, probes)
        for subject in request.subjects
        if (probes := _missing(root, request, subject, always=always))
    ]
    if missing:
        from eval_harness.probe.session import measure  # torch: not needed where all is there

        measure(root, request, missing)
    write_shown(root, _shown(request))
    texts = write_by_name(root, form=options.format)
    for name in ("table0", "table0-differences"):
        if name in texts:
            print(texts[name])  # noqa: T201
    return DONE


def _missing(root: Path, request: Request, subject: Subject, *, always: bool) -> list[str]:
    """Return the probes that a model has no valid result of, for exactly these settings."""
    missing = []
    for probe, key in request.keys_of(subject.model).items():
        try:
            read_examples(root, read(root, key))
        except NewerResult:
            raise
        except InvalidResult:
            missing.append(probe)
        else:
            missing += [probe] if always else []
    return missing


def _shown(request: Request) -> Shown:
    return Shown(
        tuple(request.keys_of(subject.model) for subject in request.subjects),
        request.teacher.model.key if request.teacher else None,
    )


COMMAND = Command(
    name="eval_harness probe",
    summary="measures language models before any fine-tuning, and prints Table 0",
    flags=(
        Flag(
            "model",
            "models: short names, folders or Hub ids; the others are compared with the first",
            many=True,
            required=True,
            alias="model_name_or_path",
        ),
        Flag("teacher", "model whose predictions and hidden states the others' are compared with"),
        Flag(
            "text",
            "held-out text that no model was trained on: .txt, a text per line, or .jsonl, .csv, "
            ".parquet with a column text",
            many=True,
        ),
        Flag(
            "pairs",
            "minimal pairs in BLiMP's format: .jsonl, .csv, .parquet with sentence_good and "
            "sentence_bad; those that differ in one word count",
            many=True,
        ),
        Flag(
            "tasks",
            "tasks of texts to fit linear probes for, or .yaml files; sst2 and stsb tell models "
            "apart, rte hardly does",
            many=True,
        ),
        DATA_DIR,
        Flag(
            "limit",
            "maximum number of texts, of pairs per file, and of examples per split",
            int,
            1000,
            check=above_zero,
        ),
        Flag("max_seq_length", "maximum sequence length in tokens", int, 128, check=above_zero),
        Flag("seed", "random seed of the hidden words", int, 0, check=is_seed),
        Flag(
            "batch_size",
            "texts per batch; changes numbers by rounding alone",
            int,
            32,
            check=above_zero,
        ),
        Flag("device", "device to run on", default="cpu", choices=("cpu", "cuda")),
        Flag("format", "output format", default="markdown", choices=tuple(FORMATS)),
        Flag("results_dir", "folder that results are saved to", default="results"),
        Flag(
            "rerun",
            "missing: what has no valid result; always: everything",
            default="missing",
            choices=("missing", "always"),
        ),
    ),
    run=run,
    examples=(
        "python -m eval_harness probe --model my-distil --teacher bert --text held-out.txt",
        "python -m eval_harness probe --model a b --text held-out.txt --pairs blimp/*.jsonl",
        "python -m eval_harness probe --model a b --tasks sst2 stsb --data_dir glue_data",
    ),
)
