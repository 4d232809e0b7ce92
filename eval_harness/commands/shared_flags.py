"""Flags that several commands share: models, teachers, data and sweeps."""

from typing import Any

from angels_share.errors import UserError
from angels_share.flags import Flag, Options, above_zero, is_seed, not_negative
from eval_harness.commands.executors import EXECUTORS, check_executor
from eval_harness.runs.onnx_files import names_onnx

MODEL = Flag(
    "model",
    "models to fine-tune: short names, folders or Hub ids, the latter with @REVISION if wanted; or "
    "exported files (.onnx), which are evaluated as they are",
    many=True,
    required=True,
    alias="model_name_or_path",
)
ALPHA_CE = Flag(
    "alpha_ce", "weight of the loss on the teacher's soft targets", float, 0.5, check=not_negative
)
TEMPERATURE = Flag(
    "temperature", "softmax temperature of teacher and student", float, 2.0, check=above_zero
)

SWEEP = (
    Flag("num_seeds", "number of seeds, counted from 1", int, 5, check=above_zero),
    Flag("seeds", "explicit list of seeds, instead of --num_seeds", int, many=True, check=is_seed),
    Flag("results_dir", "folder that results are read from and saved to", default="results"),
    Flag(
        "rerun",
        "missing: runs without a valid result; always: all runs; never: only write the tables",
        default="missing",
        choices=("missing", "always", "never"),
    ),
    Flag(
        "dry_run",
        "say which runs have results and which would be executed, how many steps they are and how "
        "long they took before; train and write nothing",
        bool,
    ),
    Flag(
        "limit",
        "maximum number of examples per training and evaluation split",
        int,
        check=above_zero,
    ),
    Flag(
        "workers",
        "worker processes, each doing one run at a time [one per GPU, else 1]; on Ray, runs at a "
        "time [as many as fit]; of Slurm, jobs [1]",
        int,
        check=above_zero,
    ),
    Flag("threads", "CPU threads per worker [cores / workers]", int, check=above_zero),
    *EXECUTORS,
    Flag(
        "save_models",
        "fine-tuned models to save below RESULTS_DIR/models, each with its card: of every seed, or "
        "best, that of the seed nearest the median of its model and task (what --push_to_hub "
        "needs); a later --teacher takes a saved one",
        default="none",
        choices=("none", "best", "all"),
    ),
    Flag(
        "choose",
        "epoch to report; best is chosen on dev, after every epoch, and is marked",
        default="last",
        choices=("last", "best"),
    ),
)

EVAL_ONLY = Flag(
    "eval_only",
    "evaluate models as they are, without fine-tuning: language models by their perplexity, others "
    "that were fine-tuned on the task; one run each, since nothing is drawn",
    bool,
)

NO_TEACHER_CACHE = Flag(
    "no_teacher_cache",
    "run the teacher at every step instead of caching its logits for all epochs and seeds",
    bool,
)

DATA_DIR = Flag("data_dir", "folder of GLUE's own TSVs, or of parquet, csv or json [the Hub]")
DATA_REVISION = Flag(
    "data_revision", "commit, tag or branch of the data sets on the Hub [cached, else the newest]"
)

_FROM_THE_FOLDER = "read from the model's folder; drop it"
OTHER_SCRIPTS = {
    "overwrite_output_dir": "results are not overwritten: use --rerun always to do runs again",
    "overwrite_cache": "nothing needs it: what is cached is known by its content",
    "cache_dir": "set HF_HOME",
    "model_revision": "use --model NAME@REVISION",
    "config_name": _FROM_THE_FOLDER,
    "tokenizer_name": _FROM_THE_FOLDER,
    "model_type": _FROM_THE_FOLDER,
    "teacher_type": _FROM_THE_FOLDER,
    "do_lower_case": _FROM_THE_FOLDER,
    "use_fast_tokenizer": "fast tokenizers are always used; drop it",
    "evaluate_during_training": "use --choose best, which evaluates after every epoch",
    "eval_all_checkpoints": "use --choose best, which evaluates after every epoch",
    "group_by_length": "batches hold examples of similar length already "
    "(--train_sampling_strategy)",
    "corpus": "use run_pretrain_distill.py, which distils on text",
}
"""Flags of transformers' and the original's scripts that a run has no use for."""

_DISTILLATION_FLAGS = (
    "alpha_ce",
    "alpha_task",
    "alpha_squad",
    "temperature",
    "kd_over_all_positions",
    "no_teacher_cache",
)


NOT_WITH_A_TEACHER = {
    "label_smoothing_factor": "the teacher's soft targets already smooth the labels",
    "neftune_noise_alpha": "it would add noise to the student's input but not to the teacher's",
    "optim_target_modules": "only GaLore and APOLLO read it, and distillation supports neither",
}
"""Flags of TrainingArguments that only plain fine-tuning takes."""


def shared_settings(options: Options) -> dict[str, Any]:
    """Return the fields that every `Experiment` takes from these flags.

    Raises:
        UserError: flags that need a teacher, or that exclude one, or both --seeds and --num_seeds,
            or flags of another executor.
    """
    given = [
        name
        for name in _DISTILLATION_FLAGS
        if name in options.given and options.values[name] is not False
    ]
    if given and not options.teacher:
        raise UserError(f"--{given[0]} needs a --teacher to distil from")
    for name, reason in NOT_WITH_A_TEACHER.items():
        if options.teacher and options.training.get(name):
            raise UserError(f"--{name} is not accepted with --teacher: {reason}")
    if options.teacher and options.alpha_ce == 0:
        raise UserError("--alpha_ce 0 leaves the --teacher unused; drop both flags")
    check_executor(options)
    if options.seeds and "num_seeds" in options.given:
        raise UserError("--seeds and --num_seeds exclude each other: give one of them")
    return {
        "models": tuple(options.model),
        "seeds": tuple(dict.fromkeys(options.seeds or range(1, options.num_seeds + 1))),
        "results_dir": options.results_dir,
        "teacher": options.teacher,
        "caches_teacher_outputs": not options.no_teacher_cache,
        "data_revision": options.data_revision,
        "limit": options.limit,
        "choose": options.choose,
        "save_models": _save_models(options),
    }


_OF_TRAINING = {
    "teacher": "it distils while fine-tuning",
    "seeds": "nothing is drawn, so one run is enough",
    "num_seeds": "nothing is drawn, so one run is enough",
    "choose": "there are no epochs to choose from",
    "save_models": "the models stay as they are",
    "push_to_hub": "the models stay as they are",
    "train_file": "nothing is learned from it",
}


_WITHOUT_EFFECT: tuple[object, ...] = (None, False, [], "none", "last")


def evaluation_alone(options: Options) -> dict[str, Any]:
    """Return the fields of an `Experiment` that has no training; none if it has.

    Raises:
        UserError: a flag of training, beside --eval_only or an ONNX file; or such files beside
            models to fine-tune.
    """
    files = [name for name in options.model if names_onnx(name)]
    others = [name for name in options.model if name not in files]
    if files and others and not options.eval_only:
        raise UserError(
            f"--model: {files[0]} can only be evaluated and {others[0]} would be fine-tuned: use "
            f"two commands, one with --model {' '.join(others)}, one with --model "
            f"{' '.join(files)}; or --eval_only for all of them"
        )
    if not files and not options.eval_only:
        return {}
    where = "--eval_only" if options.eval_only else "an .onnx file, which is evaluated as it is"
    for name, reason in _OF_TRAINING.items():
        if name in options.given and options.values[name] not in _WITHOUT_EFFECT:
            raise UserError(f"--{name} is not accepted with {where}: {reason}")
    return {"eval_only": True, "seeds": (1,)}


def _save_models(options: Options) -> str:
    """Return which models are saved: what is pushed must be."""
    if not options.push_to_hub or options.save_models != "none":
        return str(options.save_models)
    if "save_models" in options.given:
        raise UserError("--push_to_hub needs a saved model: --save_models best, or leave it out")
    return "best"
