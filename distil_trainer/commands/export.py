"""`python -m distil_trainer export`: a model as a file that runs without Python.

python -m distil_trainer export results/models/KEY --quantize int8 --check sst2.csv
"""

from pathlib import Path

from angels_share.cli import DONE, Command
from angels_share.errors import UserError
from angels_share.files import require_writable_folder
from angels_share.flags import Flag, Options, is_fraction, not_negative
from distil_trainer.commands.row_flags import LABEL_COLUMN, ROWS, TEXT_COLUMNS


def run(options: Options) -> int:
    """Export a model, compare the files with it, and note both in its record.

    Raises:
        UserError: the model, the data or a package isn't there.
        RunFailed: a file's answers are too far from the model's; then it is not kept.
    """
    model = Path(options.model).expanduser()
    output_dir = options.output_dir or (str(model) if model.is_dir() else None)
    if output_dir is None:
        raise UserError(f"{options.model} is not a folder: add --output_dir for its files")
    for name in ("text_columns", "label_column", "rows", "least_agreement"):
        if options.check is None and name in options.given:
            raise UserError(f"--{name} is about --check DATA, which is not given")
    if options.quantize is None and "least_agreement" in options.given:
        raise UserError("--least_agreement is about an int8 file: add --quantize int8")
    require_writable_folder(output_dir, "--output_dir")
    from distil_trainer.smaller.export import Request, export

    request = Request(
        model=options.model,
        folder=Path(output_dir).expanduser(),
        int8=options.quantize == "int8",
        data=None if options.check is None else Path(options.check).expanduser(),
        text_columns=tuple(options.text_columns or ()),
        label_column=options.label_column,
        needs_labels="label_column" in options.given,
        rows=options.rows,
        tolerance=options.tolerance,
        least_agreement=options.least_agreement,
    )
    for line in export(request):
        print(line, flush=True)  # noqa: T201
    return DONE


COMMAND = Command(
    name="distil_trainer export",
    summary="writes a model as ONNX, in float32 or int8, and compares the files with it",
    flags=(
        Flag("model", "folder, short name or Hub id", required=True, first=True),
        Flag("to", "file format", default="onnx", choices=("onnx",)),
        Flag("quantize", "also a file with 8-bit weights", choices=("int8",)),
        Flag(
            "check",
            "rows that files and model must agree on: .csv, .tsv, .jsonl, .json or .parquet "
            "[32 rows of tokens drawn at random]",
            metavar="DATA",
        ),
        TEXT_COLUMNS,
        LABEL_COLUMN,
        ROWS,
        Flag(
            "tolerance",
            "largest difference of a logit that a float32 file may have",
            float,
            1e-3,
            check=not_negative,
        ),
        Flag(
            "least_agreement",
            "share of DATA's answers that an int8 file must share with the model",
            float,
            0.9,
            check=is_fraction,
        ),
        Flag("output_dir", "folder for the files [the model's own]", metavar="DIR"),
    ),
    run=run,
    examples=(
        "python -m distil_trainer export my-distil",
        "python -m distil_trainer export my-sst2 --quantize int8 --check dev.csv",
        "python -m distil_trainer export distilbert-squad --output_dir squad-onnx",
    ),
)
