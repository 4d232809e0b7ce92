"""`python -m distil_trainer prune`: a model cut to its most important parts.

python -m distil_trainer prune my-sst2 --ffn 0.5 --width 0.67 --data train.csv --output_dir smaller
"""

from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, above_zero, is_seed
from angels_share.model_files import WEIGHTS
from angels_share.student_record import RECORD
from distil_trainer.commands.row_flags import LABEL_COLUMN, ROWS, TEXT_COLUMNS

SCORES = ("labels", "output", "fisher", "kl", "random")


def _share(value: float) -> str | None:
    return None if 0 < value <= 1 else "must be above 0 and at most 1"


def run(options: Options) -> int:
    """Cut a model and save what is left.

    Raises:
        UserError: the model or the data aren't there, or nothing can be cut to these sizes.
    """
    if options.ffn == options.heads == options.width == 1:
        raise UserError("nothing to cut: set --ffn, --heads or --width below 1")
    first, *later = options.score
    if len(options.score) > 2:
        raise UserError(
            f"--score {' '.join(options.score)}: one, or the first cut's and the rest's"
        )
    if first == "kl":
        raise UserError(
            "--score kl: before the first cut the model is the one that it is compared with, so "
            "KL is at its minimum and its gradient zero: only rounding would be ranked; begin with "
            "another, `--score fisher kl`, or use `fisher`, KL's second-order term"
        )
    if later and options.iterations == 1:
        raise UserError(f"--score {' '.join(options.score)}: with one iteration there is one score")
    if (options.data is None) != (options.score == ["random"]):
        hint = "random draws need no --data" if options.data else "scores are measured on --data"
        raise UserError(f"--score {' '.join(options.score)}: {hint}")
    for name in ("text_columns", "label_column", "rows", "batch_size"):
        if options.data is None and name in options.given:
            raise UserError(
                f"--{name} has no effect with --score {' '.join(options.score)}; drop it"
            )
    folder = Path(options.output_dir).expanduser()
    there = folder if folder.exists() else folder.absolute().parent
    require_writable_folder(there, "--output_dir")
    if any((folder / name).exists() for name in ("config.json", RECORD, WEIGHTS)):
        raise UserError(f"{folder} holds a model; choose another --output_dir")
    from distil_trainer.smaller.prune import Request, prune_model

    request = Request(
        model=options.model,
        folder=folder,
        ffn=options.ffn,
        heads=options.heads,
        width=options.width,
        scores=(first, *(later or [first])),
        data=None if options.data is None else Path(options.data).expanduser(),
        text_columns=tuple(options.text_columns or ()),
        label_column=options.label_column,
        needs_labels="label_column" in options.given or "labels" in options.score,
        iterations=options.iterations,
        rows=options.rows,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    print(f"{prune_model(request)}; noted in {folder / RECORD}")  # noqa: T201
    return DONE


COMMAND = Command(
    name="distil_trainer prune",
    summary="cuts a model to its most important heads, neurons and hidden units",
    flags=(
        Flag("model", "folder, short name or Hub id", required=True, first=True),
        Flag("output_dir", "folder for what is left", required=True, metavar="DIR"),
        Flag("ffn", "share of each layer's feed-forward neurons to keep", float, 1.0, check=_share),
        Flag(
            "heads",
            "share of each layer's heads to keep, where a head's size is a setting of its own "
            "(Llama, Qwen3, Gemma 3, EuroBERT, NomicBERT); in others --width decides both",
            float,
            1.0,
            check=_share,
        ),
        Flag(
            "width",
            "share of the hidden size to keep; of a BERT, RoBERTa, DistilBERT, ModernBERT, GPT-2 "
            "or Qwen2 also of its heads",
            float,
            1.0,
            check=_share,
        ),
        Flag(
            "score",
            "by what parts are ranked: the loss on true labels, KL to the model's own output "
            "without dropout, Fisher (labels drawn from the model), or chance; of two, the second "
            "from the second iteration on, where `kl` compares with the model before any cut",
            default=("fisher",),
            many=True,
            choices=SCORES,
        ),
        Flag("data", "rows to score on: .csv, .tsv, .jsonl, .json or .parquet", metavar="DATA"),
        TEXT_COLUMNS,
        LABEL_COLUMN,
        Flag(
            "iterations",
            "cuts in which the sizes are reached, each scored anew",
            int,
            1,
            check=above_zero,
        ),
        ROWS,
        Flag("batch_size", "rows per batch", int, 16, check=above_zero),
        Flag("seed", "seed of drawn labels, dropout and random cuts", int, 42, check=is_seed),
    ),
    run=run,
    examples=(
        "python -m distil_trainer prune my-sst2 --ffn 0.5 --data train.csv --output_dir smaller",
        "python -m distil_trainer prune my-sst2 --ffn 0.5 --width 0.67 --iterations 4 --score "
        "fisher kl --data train.csv --output_dir smaller",
    ),
)
