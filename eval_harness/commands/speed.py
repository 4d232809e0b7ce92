"""The door of `speed`: its flags."""

from angels_share.cli import Door
from angels_share.flags import Flag, Options, above_zero


def _speed(options: Options) -> int:
    from eval_harness.speed.session import measure

    return measure(options)


SPEED_DOOR = Door(
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
    run=_speed,
    examples=(
        "python -m eval_harness speed --model bert distilbert",
        "python -m eval_harness speed --model bert distilbert --random_weights --synthetic",
        "python -m eval_harness speed --model my-teacher my-student --data_dir glue_data --full",
    ),
)
