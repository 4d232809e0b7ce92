"""The work of `run_pretrain_distill`: from teachers and a corpus to a student and its record.

`distil_trainer.cli` has checked the flags; this module imports torch.
"""

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedConfig, PrinterCallback
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging as transformers_logging

from angels_share.ablations import ABLATIONS, FULL
from angels_share.cli import DONE, RUN_FAILED
from angels_share.errors import UserError
from angels_share.files import sha256_of_file, write_json
from angels_share.flags import Options
from angels_share.hub.fetch import model_folder
from angels_share.hub.locate import locate
from angels_share.hub.push import Destination, push, push_command, upload_of_model
from angels_share.student_record import LINEAGE, RECORD, is_complete, steps_of_weights
from angels_share.tokenizing import check_vocabularies, has_tokenizer, load_tokenizer
from distil_trainer.chosen_student import OF_STUDENT, ChosenStudent
from distil_trainer.data.batches import TextStream
from distil_trainer.data.corpus import Corpus, maker_for, prepare_corpus, sources_for
from distil_trainer.data.pretokenized import TokenTaker
from distil_trainer.data.sequence_maker import CorpusOptions
from distil_trainer.data.sources import texts_of
from distil_trainer.models.families import family_of, layer_types
from distil_trainer.models.loading import load_config, load_model
from distil_trainer.models.student import check_pair
from distil_trainer.objectives.relations import plan_relations
from distil_trainer.recipe import OF_TEACHERS, WEIGHTS, needs_equal_width
from distil_trainer.training.args import DistilTrainingArguments
from distil_trainer.training.checkpoint import AUTO, numbered, requested, restarts
from distil_trainer.training.record import record_of
from distil_trainer.training.trainer import DistilTrainer


def pretrain(options: Options, destination: Destination | None = None) -> int:
    """Train one student, or several one after the other; return the exit status.

    Args:
        options: the command's flags.
        destination: where to push what is finished, if anywhere; of several students, what the
            names of their repositories begin with.
    """
    # These bars are of loading and saving models, which takes seconds; the Trainer's own stays.
    transformers_logging.disable_progress_bar()
    gc.freeze()  # the Trainer collects garbage after every student: a quarter of a second each
    students = _students(options)
    status = DONE
    for student in students:
        folder = Path(options.output_dir) / student.place
        place = destination
        if destination and student.place:
            name = student.place.replace("/", "-")
            place = replace(destination, repo_id=f"{destination.repo_id}-{name}")
        job = _Job.of(options, folder, student, place)
        if job.is_done():
            print(f"{folder}: complete, nothing to do")  # noqa: T201
            continue
        ended = job.run()
        status = max(status, ended)
        if ended not in (DONE, RUN_FAILED):  # a push that failed stops no training
            break
    return status


class _Student(NamedTuple):
    """One of the students that a command trains: where below --output_dir, and what is special."""

    place: str
    ablation: str
    seed: int | None


def _students(options: Options) -> list[_Student]:
    """Return the students in their order: of each seed, each ablation."""
    several = options.ablation == "all"
    ablations = list(ABLATIONS) if several else [options.ablation or FULL]
    seeds: list[int | None] = list(dict.fromkeys(options.seeds)) if options.seeds else [None]
    students = []
    for seed in seeds:
        for ablation in ablations:
            parts = [] if seed is None else [f"seed-{seed}"]
            parts += [ablation] if several else []
            students.append(_Student("/".join(parts), ablation, seed))
    return students


_SHOWN = 12
"""Tokens of a row that are shown to people."""

Frame = Sequence[list[int]]
"""The ids before a text, and those after it."""

_OURS = (
    *WEIGHTS, "temperature", "divergence", "relation_layer", "relation_heads",
    "restrict_ce_to_mask", "mlm_probability", "mlm_smoothing", "mask_scope", "tokens_per_batch",
    "allow_inexact_resume", "shard_student",
)  # fmt: skip
"""The command's flags that are fields of DistilTrainingArguments."""


@dataclass(frozen=True)
class _Job:
    """One student to train."""

    options: Mapping[str, Any]
    given: frozenset[str]
    training: Mapping[str, Any]
    folder: Path
    ablation: str
    is_one_of_several: bool
    destination: Destination | None

    @classmethod
    def of(
        cls, options: Options, folder: Path, student: _Student, destination: Destination | None
    ) -> "_Job":
        changed = {**options.values, **ABLATIONS[student.ablation].changes}
        training = dict(options.training)
        if student.seed is not None:
            training["seed"] = student.seed
        several = bool(student.place)
        return cls(changed, options.given, training, folder, student.ablation, several, destination)

    def is_done(self) -> bool:
        """Return whether a resumed training has nothing left to do.

        Raises:
            UserError: the finished student was trained with other settings, or is to be pushed.
        """
        asked = requested(self.options["resume_from_checkpoint"], restarts(self.folder))
        newest = self.is_one_of_several or asked in ("latest", AUTO)
        if not (asked and newest and is_complete(self.folder)):
            return False
        record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        of_student = record.get("student", {}).get("asked_for", {})
        recipe = {**record.get("recipe", {}), **of_student}
        chosen = {name: self.options[name] for name in (*_OURS, *OF_STUDENT)} | dict(self.training)
        for name in sorted(chosen.keys() & recipe.keys() & self.given):
            if not isinstance(recipe[name], dict) and recipe[name] != chosen[name]:
                raise UserError(
                    f"{self.folder} holds a finished student of --{name} {recipe[name]}, not "
                    f"{chosen[name]}; choose another --output_dir"
                )
        if self.destination and not self.is_one_of_several:
            again = push_command(self.folder, self.destination)
            raise UserError(f"{self.folder} holds a finished student; to push it: `{again}`")
        return True

    def run(self) -> int:
        if is_complete(self.folder):
            raise UserError(f"{self.folder} holds a finished student; choose another --output_dir")
        arguments = self._arguments()
        config = self._check_configs(arguments)
        tokenizer = load_tokenizer(self._tokenizer_name())
        self._check_tokenizers(tokenizer, config)
        identities = [_identity(name) for name in self._teacher_names()]
        teachers = [load_model(name) for name in self._teacher_names()]
        corpus = self._corpus(tokenizer, [config, *(each.config for each in teachers)])
        student = self._student.make(teachers, corpus, arguments, tokenizer)
        # A streamed corpus has no validation split, and its tokens have not been counted.
        held_out = corpus.validation if isinstance(corpus, Corpus) else None
        masked = not family_of(student).causal
        trainer = DistilTrainer(
            student,
            arguments,
            teacher=teachers,
            train_dataset=corpus.train if isinstance(corpus, Corpus) else corpus,
            eval_dataset=held_out if held_out else None,
            processing_class=tokenizer,
            token_counts=corpus.token_counts if isinstance(corpus, Corpus) and masked else None,
        )
        _print_no_sums(trainer)
        if isinstance(corpus, Corpus):
            _print_once(trainer, _summary(corpus.report))
        self._print_choices(trainer, corpus, tokenizer)
        try:
            trainer.train(resume_from_checkpoint=self._resume())
        except (KeyboardInterrupt, SystemExit):
            if trainer.stop_signal is None:  # not ended by a checkpoint: a second signal, say
                raise
        return self._finish(trainer, {"teachers": identities, "corpus": _corpus_record(corpus)})

    def _teacher_names(self) -> list[str]:
        names: list[str] = self.options["teacher"]
        return [] if names == ["none"] else names

    @property
    def _student(self) -> ChosenStudent:
        return ChosenStudent(self.options, self.given)

    def _tokenizer_name(self) -> str:
        """Return the tokenizer that was named, else the first teacher's, else the student's."""
        if self.options["tokenizer"]:
            return str(self.options["tokenizer"])
        if names := self._teacher_names():
            return names[0]
        student = Path(self.options["student"])
        return str(student.parent if self._student.is_config else student)

    def _arguments(self) -> DistilTrainingArguments:
        ours = {name: self.options[name] for name in _OURS if self.options[name] is not None}
        if not self._teacher_names():
            for name in OF_TEACHERS:
                if name in self.given and self.options[name]:
                    raise UserError(
                        f"--{name} {self.options[name]} requires a teacher, not --teacher none"
                    )
                ours[name] = 0.0
        return DistilTrainingArguments(output_dir=str(self.folder), **{**self.training, **ours})

    def _check_configs(self, arguments: DistilTrainingArguments) -> PreTrainedConfig:
        """Refuse, before weights are loaded, what the configs show to be wrong.

        Returns:
            The student's config.
        """
        names = self._teacher_names()
        configs = [load_config(name) for name in names]
        chosen = self._student.config(configs)
        family = family_of(chosen)
        if self.options["freeze_pos_embs"]:
            # Given, or a preset's.
            family.position_table("--freeze_pos_embs", "set --freeze_pos_embs False")
        weights = arguments.weights("causal" if family.causal else "masked")
        shape = family.shape(chosen)
        for number, config in enumerate(configs):
            # L_cos compares hidden states with those of the first teacher only.
            compared = number == 0 and needs_equal_width(weights)
            # Sequences are cut to the shortest maximum of all models.
            shortest = min(shape.max_length, family_of(config).shape(config).max_length)
            check_pair(chosen, config, needs_equal_width=compared, max_length=shortest)
        if weights["alpha_rel"]:
            plan_relations(
                chosen,
                configs[0],
                layer=arguments.relation_layer,
                heads=arguments.relation_heads,
            )
        return chosen

    def _check_tokenizers(self, tokenizer: Any, student: PreTrainedConfig) -> None:
        """Check that all models use the same ids and the student has an embedding for each."""
        others = [*self._teacher_names()]
        if self.options["student"] and not self._student.is_config:
            others.append(str(self.options["student"]))
        for name in others:
            if name != self._tokenizer_name() and has_tokenizer(name):
                check_vocabularies(load_tokenizer(name).get_vocab(), tokenizer.get_vocab())
        highest = max(tokenizer.get_vocab().values())
        vocabulary = family_of(student).shape(student).vocabulary
        if highest >= vocabulary:
            raise UserError(
                f"{self._tokenizer_name()}: its tokenizer has ids up to {highest} and the student "
                f"a vocabulary of {vocabulary}: make vocab_size {highest + 1} or more"
            )

    def _corpus(self, tokenizer: Any, configs: Sequence[PreTrainedConfig]) -> Corpus | TextStream:
        """Return the corpus, cut to what all models can read.

        Args:
            tokenizer: the tokenizer.
            configs: the student's config, then its teachers'.
        """
        longest = min(family_of(config).shape(config).max_length for config in configs)
        max_length = self.options["max_seq_length"]
        if max_length > longest and "max_seq_length" in self.given:
            raise UserError(
                f"--max_seq_length {max_length}: these models take at most {longest} tokens"
            )
        options = CorpusOptions(
            text_column=self.options["text_column"],
            max_length=min(max_length, longest),
            min_tokens=self.options["min_tokens"],
            max_unknown=self.options["max_unknown"],
            validation_fraction=self.options["validation_fraction"],
        )
        kind = {
            "causal": family_of(configs[0]).causal,
            "pretokenized": self.options["pretokenized"],
        }
        names = self.options["corpus"]
        if self.options["stream_corpus"]:
            maker = maker_for(tokenizer, options, **kind)
            return TextStream(sources_for(maker, names, streaming=True), maker)
        folder = self.options["corpus_dir"] or Path(self.options["output_dir"]) / "corpus"
        return prepare_corpus(names, tokenizer, cache_dir=folder, options=options, **kind)

    def _resume(self) -> str | None:
        """Return the checkpoint to resume from; of several students, some may have none yet."""
        checkpoint: str | None = self.options["resume_from_checkpoint"]
        has_any = bool(numbered(self.folder))
        return None if self.is_one_of_several and not has_any else checkpoint

    def _finish(self, trainer: DistilTrainer, sources: Mapping[str, Any]) -> int:
        """Save the student and its record, and print one line about it."""
        step = trainer.state.global_step
        if trainer.stop_signal is not None:
            self._write_record(trainer, sources, "interrupted", {})
            _print_once(
                trainer,
                f"interrupted at step {step}: saved {self.folder}/checkpoint-{step}; "
                "rerun the command with --resume_from_checkpoint to continue",
            )
            return 128 + trainer.stop_signal
        metrics = trainer.evaluate() if trainer.eval_dataset is not None else {}
        trainer.save_model(str(self.folder))
        self._write_record(trainer, sources, "complete", metrics)
        student = trainer.student
        shape = family_of(student).shape(student.config)
        perplexity = metrics.get("eval_perplexity")
        validated = f"; validation perplexity {perplexity:.4g}" if perplexity is not None else ""
        _print_once(
            trainer,
            f"{self.folder}: {type(student).__name__} of {_count(shape.depth, 'layer')} x "
            f"{shape.width}, {student.num_parameters() / 1e6:.1f} M parameters, "
            f"{_count(step, 'step')}{validated}",
        )
        return self._push(trainer) if self.destination else DONE

    def _push(self, trainer: DistilTrainer) -> int:
        """Push the student; a push that fails loses nothing, and says how to repeat it."""
        assert self.destination is not None
        if not trainer.is_world_process_zero():
            return DONE
        try:
            upload = upload_of_model(self.folder, self.destination)
            print(push(upload, self.destination), flush=True)  # noqa: T201
        except UserError as error:
            again = push_command(self.folder, self.destination)
            sys.stderr.write(f"run_pretrain_distill: {error}; the student is saved: `{again}`\n")
            return RUN_FAILED
        return DONE

    def _write_record(
        self,
        trainer: DistilTrainer,
        sources: Mapping[str, Any],
        status: str,
        metrics: Mapping[str, float],
    ) -> None:
        if not trainer.args.should_save:
            return
        record = {
            **record_of(trainer, status),
            "ablation": self.ablation,
            **sources,
            "student": {
                "class": type(trainer.student).__name__,
                "layers_of_the_teacher": self._student.layers_taken(trainer),
                **self._student.cut(trainer),
                "asked_for": {name: self.options[name] for name in OF_STUDENT},
            },
            "validation": dict(metrics),
            **self._lineage(),
        }
        write_json(self.folder / RECORD, record)

    def _lineage(self) -> dict[str, Any]:
        """Return the steps by which a given student was made before this training."""
        given = self.options["student"]
        if not given or self._student.is_config:
            return {}
        steps = steps_of_weights(model_folder(locate(given)))
        return {LINEAGE: steps} if steps else {}

    def _print_choices(
        self, trainer: DistilTrainer, corpus: Corpus | TextStream, tokenizer: Any
    ) -> None:
        """Print what can't be checked for the user, or was decided: ids, a frame, layers' types."""
        if self.options["pretokenized"] and trainer.is_world_process_zero():
            first = tokenizer.decode(_first_row(corpus)[:_SHOWN])
            _print_once(
                trainer,
                "corpus: token ids are taken as they are; whether they are this tokenizer's can't "
                f"be checked. By it, the first row begins {first!r}",
            )
        if (frame := _frame_of(corpus)) is not None:
            begin, end = (" ".join(tokenizer.convert_ids_to_tokens(part)) for part in frame)
            _print_once(trainer, f"corpus: each sequence stands between {begin} and {end}")
        types = layer_types(trainer.student.config) or ()
        layers = self._student.layers_taken(trainer)
        if layers is not None and len(set(types)) > 1:
            each = ", ".join(f"{n} {kind}" for n, kind in zip(layers, types, strict=True))
            _print_once(trainer, f"student: the teacher's layers {each}")


def _corpus_record(corpus: Corpus | TextStream) -> dict[str, Any]:
    """Return what identifies the corpus, so that it can be prepared again."""
    if isinstance(corpus, Corpus):
        keys = ("fingerprint", "sources", "options", "train", "validation", "tally")
        taken = {key: True for key in ("pretokenized",) if key in corpus.report}
        return {key: corpus.report[key] for key in keys} | taken
    taken = {"pretokenized": True} if isinstance(corpus.maker, TokenTaker) else {}
    return {"streamed": [source.name for source in corpus.sources], **taken}


def _first_row(corpus: Corpus | TextStream) -> Any:
    """Return the first sequence of token ids that another pipeline made."""
    if isinstance(corpus, Corpus):
        return corpus.train[0]
    return next((row for row in texts_of(corpus.sources) if len(row)), ())


def _frame_of(corpus: Corpus | TextStream) -> Frame | None:
    """Return the ids that were put before and after each text, if any were."""
    if isinstance(corpus, TextStream):
        return corpus.maker.added_frame
    return corpus.report.get("frame")


def _summary(report: Mapping[str, Any]) -> str:
    """Return one line about what was trained on, held out and dropped."""
    train, held_out, tally = report["train"], report["validation"], report["tally"]
    if "pretokenized" in report:
        return (
            f"corpus: {tally['texts']:,} rows of token ids, {tally['blank']:,} of them empty; "
            f"trained on {train['sequences']:,} of {train['tokens']:,} tokens, held out "
            f"{held_out['sequences']:,}"
        )
    return (
        f"corpus: {tally['texts']:,} texts, {tally['cut']:,} of them cut; trained on "
        f"{train['sequences']:,} sequences of {train['tokens']:,} tokens, held out "
        f"{held_out['sequences']:,}; dropped {tally['blank']:,} blank, {tally['short']:,} short, "
        f"{tally['unknown']:,} mostly unknown"
    )


class _Bar(ProgressCallback):
    """The Trainer's bar and logs, without the sums at the end: the last line says it for people."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if "train_runtime" not in (logs or ()):
            super().on_log(args, state, control, logs=logs, **rest)


class _Logs(PrinterCallback):
    """The Trainer's logs where it has no bar, likewise."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if "train_runtime" not in (logs or ()):
            super().on_log(args, state, control, logs=logs, **rest)


def _print_no_sums(trainer: DistilTrainer) -> None:
    """Have the Trainer print no dictionary of run times at the end."""
    for theirs, ours in ((ProgressCallback, _Bar), (PrinterCallback, _Logs)):
        if trainer.pop_callback(theirs) is not None:
            trainer.add_callback(ours)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_once(trainer: DistilTrainer, line: str) -> None:
    """Print in the main process only."""
    if trainer.is_world_process_zero():
        print(line, flush=True)  # noqa: T201


def _identity(name: str) -> dict[str, str | None]:
    """Return what identifies a teacher: its Hub revision, or the hash of its weights."""
    located = locate(name)
    weights = model_folder(located) / "model.safetensors"
    sha256 = sha256_of_file(weights) if weights.is_file() else None
    return {
        "name": name,
        "source": located.source,
        "revision": located.revision,
        "sha256": sha256,
    }
