"""What `run_glue` and `run_squad_distill` have in common: flags of models, teachers and sweeps."""

from typing import Any

from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, is_seed, not_negative

MODEL = Flag(
    "model",
    "models: short names, folders or Hub ids",
    many=True,
    required=True,
    alias="model_name_or_path",
)
ALPHA_CE = Flag("alpha_ce", "weight of the teacher's soft targets", float, 0.5, check=not_negative)
TEMPERATURE = Flag("temperature", "softens both distributions", float, 2.0, check=above_zero)

SWEEP = (
    Flag("num_seeds", "how many seeds: the first so many of 1, 2, 3, …", int, 5, check=above_zero),
    Flag("seeds", "these seeds instead", int, many=True, check=is_seed),
    Flag("results_dir", "where results are kept and looked for", default="results"),
    Flag(
        "rerun",
        "missing: only what has no valid result; always; never: only the tables",
        default="missing",
        choices=("missing", "always", "never"),
    ),
    Flag("limit", "at most so many training and evaluation examples", int, check=above_zero),
    Flag(
        "workers",
        "processes, each with one run at a time [one per GPU, else one]",
        int,
        check=above_zero,
    ),
    Flag("threads", "of each worker [its share of the cores]", int, check=above_zero),
    Flag(
        "choose",
        "which epoch counts; best looks at dev after each, and is marked",
        default="last",
        choices=("last", "best"),
    ),
)


NO_TEACHER_CACHE = Flag(
    "no_teacher_cache",
    "ask the teacher at every step, rather than once for all epochs and seeds",
    bool,
)

_OF_DISTILLATION = (
    "alpha_ce", "alpha_task", "alpha_squad", "temperature", "kd_over_all_positions",
    "no_teacher_cache",
)  # fmt: skip


def shared_settings(options: Options) -> dict[str, Any]:
    """Return what every experiment takes from these flags, by its names.

    Raises:
        UserError: flags of distillation without a teacher, or seeds that were given twice.
    """
    given = [
        name for name in _OF_DISTILLATION
        if name in options.given and options.values[name] is not False
    ]  # fmt: skip
    if given and not options.teacher:
        raise UserError(f"--{given[0]} is of distillation, which wants a --teacher")
    if options.teacher and options.alpha_ce == 0:
        raise UserError("--alpha_ce 0: nothing would come from the --teacher; leave both out")
    if options.seeds and "num_seeds" in options.given:
        raise UserError("--seeds and --num_seeds both say which seeds: give one of them")
    return {
        "models": tuple(options.model),
        "seeds": tuple(dict.fromkeys(options.seeds or range(1, options.num_seeds + 1))),
        "results_dir": options.results_dir,
        "teacher": options.teacher,
        "caches_teacher_outputs": not options.no_teacher_cache,
        "data_revision": options.data_revision,
        "limit": options.limit,
        "choose": options.choose,
    }
