"""DistilTrainer: what is trained and what is not, what it costs, and what it says of itself."""

import json
import os

import numpy as np
import pytest
import tiny
import torch
import transformers
import updates
from torch.nn import functional

from angels_share.errors import RunFailed, UserError
from distil_trainer import DistilTrainer, DistilTrainingArguments, make_student
from distil_trainer.models.families import family_of
from distil_trainer.objectives.language_model import LanguageModelObjective, attended_tokens
from distil_trainer.training import step_metrics
from distil_trainer.training.checks import check_settings


def copies(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("kind", updates.KINDS)
def test_after_three_steps_the_student_changed_and_the_teacher_did_not(kind, tmp_path):
    """Prevents a parameter that no gradient reaches, and a teacher that learns."""
    trainer = updates.trainer_for(kind, tmp_path, max_steps=4, warmup_steps=0)
    (teacher,) = trainer.teachers
    teacher_before, before = copies(teacher), copies(trainer.student)
    trainer.train()
    same = [name for name, value in copies(trainer.student).items() if value.equal(before[name])]
    assert same == []
    assert all(value.equal(teacher_before[name]) for name, value in copies(teacher).items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name, tmp_path):
    """Prevents a teacher that sees another input, mask or order of rows than its student."""
    teacher = tiny.ARCHITECTURES[name](layers=2)
    student = make_student(teacher, num_layers=2, architecture=name)
    hard = {"alpha_clm": 0.0} if family_of(teacher).causal else {"alpha_mlm": 0.0}
    trainer = updates.trainer_of(
        name,
        tmp_path,
        teacher=teacher,
        student=student,
        eval_data=updates.sequences(160, first=10),
        alpha_mse=1.0,
        alpha_rel=1.0,
        **hard,
    )
    metrics = trainer.evaluate()
    for term in ("ce", "mse", "cos", "rel"):
        assert metrics[f"eval_loss_{term}"] == pytest.approx(0, abs=2e-5), term
    assert metrics["eval_agreement"] == 1.0


def textbook(trainer, batch):
    """The three terms on full logits in float64, from the models' own outputs."""
    (teacher,) = trainer.teachers
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours, theirs = (
            model.double()(**inputs, output_hidden_states=True)
            for model in (trainer.student.eval(), teacher)
        )
    attended, labels = batch["attention_mask"].bool(), batch["labels"]
    zs, zt = ours.logits[attended] / 2, theirs.logits[attended] / 2
    kl = functional.kl_div(zs.log_softmax(-1), zt.softmax(-1), reduction="sum") * 4
    mlm = functional.cross_entropy(ours.logits.flatten(0, 1), labels.flatten())
    hidden = (output.hidden_states[-1][attended] for output in (ours, theirs))
    cosine = 1 - functional.cosine_similarity(*hidden, dim=-1)
    return {"ce": kl / attended.sum(), "mlm": mlm, "cos": cosine.mean()}


def test_evaluation_equals_a_textbook_in_float64(tmp_path):
    """Prevents a validation metric that is not what its name says."""
    trainer = updates.trainer_for("masked", tmp_path, alpha_mse=0.0)
    trainer.eval_dataset = trainer.train_dataset
    metrics = trainer.evaluate()
    (batch,) = trainer.get_eval_dataloader()
    expected = textbook(trainer, batch)
    for term, value in expected.items():
        # A divergence is a difference of numbers near 5, so its rounding is theirs.
        assert metrics[f"eval_loss_{term}"] == pytest.approx(float(value), rel=1e-5, abs=5e-7)
    assert metrics["eval_perplexity"] == pytest.approx(float(expected["mlm"].exp()), rel=1e-5)
    total = 5 * expected["ce"] + 2 * expected["mlm"] + expected["cos"]
    assert metrics["eval_loss"] == pytest.approx(float(total), rel=1e-5)


def test_every_part_is_logged_and_adds_up(tmp_path):
    """Prevents a part that is logged at another scale than the loss it is part of."""
    trainer = updates.trainer_for("masked", tmp_path, logging_steps=1, max_steps=3, alpha_mse=0.0)
    trainer.train()
    for entry in trainer.state.log_history[:3]:
        parts = 5 * entry["loss_ce"] + 2 * entry["loss_mlm"] + entry["loss_cos"]
        assert entry["loss"] == pytest.approx(parts, rel=1e-4)
        assert "loss_mse" not in entry
        assert 0.14 < entry["label_share"] < 0.25  # a sixth: each example's share is rounded up
        assert 0 <= entry["padding_share"] < 1
        assert entry["tokens_per_second"] > 0
        assert 0 <= entry["wait_share"] < 1


class Counting(torch.nn.Module):
    """Counts how often a module is called."""

    def __init__(self, module):
        super().__init__()
        self.calls = 0
        module.register_forward_hook(self)

    def __call__(self, *_):
        self.calls += 1


def test_a_weight_of_zero_costs_nothing(tmp_path):
    """Prevents a teacher's forward for a baseline that has no use for a teacher."""
    teacher = tiny.bert(layers=3)
    calls = Counting(teacher.bert)
    none = dict.fromkeys(("alpha_ce", "alpha_mse", "alpha_cos", "alpha_rel"), 0.0)
    trainer = updates.trainer_for("masked", tmp_path, teacher=teacher, **none)
    trainer.train()
    assert calls.calls == 0
    updates.trainer_for("masked", tmp_path, teacher=teacher).train()
    assert calls.calls == 1


def test_hidden_states_alone_need_no_logits(tmp_path, monkeypatch):
    """Prevents L_cos alone from paying for a vocabulary, or from leaving DDP without gradients."""
    from distil_trainer.objectives import vocab_head

    rows = []
    add_up = vocab_head._process_blocks
    monkeypatch.setattr(
        vocab_head,
        "_process_blocks",
        lambda student, *rest: rows.append(len(student.hidden)) or add_up(student, *rest),
    )
    only = {"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_mse": 0.0}
    _, gradient, trainer = updates.one_update("masked", tmp_path, **only)
    assert rows == [0]
    assert len(gradient) == len(list(trainer.student.parameters()))
    assert all(torch.isfinite(value).all() for value in gradient.values())


def test_plain_training_without_a_teacher(tmp_path):
    """Prevents the baseline that people ask for from needing a teacher at all."""
    none = dict.fromkeys(("alpha_ce", "alpha_mse", "alpha_cos", "alpha_rel"), 0.0)
    trainer = updates.trainer_for("masked", tmp_path, teacher=[], logging_steps=1, **none)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0
    with pytest.raises(UserError, match=r"alpha_ce 5\.0 needs a teacher"):
        updates.trainer_for("masked", tmp_path, teacher=[])


def test_several_teachers_are_averaged(tmp_path):
    """Prevents all but the first of several teachers from being ignored."""
    first, second = tiny.bert(layers=3), tiny.bert(layers=2, seed=5)
    alone = updates.one_update("masked", tmp_path, teacher=first, alpha_mse=0.0)[0]
    twice = updates.one_update("masked", tmp_path, teacher=[first, first], alpha_mse=0.0)[0]
    both = updates.one_update("masked", tmp_path, teacher=[first, second], alpha_mse=0.0)[0]
    assert twice == pytest.approx(alone, rel=1e-5)
    assert abs(both - alone) > 1e-5


MASKS = {
    "none": None,
    "ones": torch.ones(2, 6, dtype=torch.int64),
    "booleans": torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]).bool(),
}


def bare_batch(mask):
    """A batch of two sequences as somebody's own collator would make it."""
    ids = torch.arange(10, 22).view(2, 6)
    batch = {"input_ids": ids, "labels": ids.clone()}
    return batch if mask is None else {**batch, "attention_mask": mask}


def bare_objective():
    return LanguageModelObjective(
        tiny.distilbert(layers=1), temperature=2.0, restrict_to_mask=False, soft=True
    )


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_zeros_and_ones_are_taken(name):
    """Prevents a batch without a mask from failing, and padding from counting as tokens."""
    batch, tokens = bare_batch(MASKS[name]), 8 if name == "booleans" else 12
    assert attended_tokens(batch) == tokens
    prepared = bare_objective().prepare(batch)
    assert len(prepared["attended_rows"]) == len(prepared["head_labels"]) == tokens


@pytest.mark.parametrize("values", [(0.0, -1e4), (1.0, 0.5), (1, 2), (1, -1)])
def test_masks_of_other_values_are_refused(values):
    """Prevents a mask that is added to scores, or numbers documents, from being read as 0 and 1."""
    mask = torch.tensor(values).repeat(2, 3)
    with pytest.raises(UserError, match="attention_mask of other values than 0 and 1"):
        bare_objective().prepare(bare_batch(mask))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_checkpointing_under_its_older_name():
    """Prevents a Trainer that knows the older name alone from storing all activations."""
    objective, calls = bare_objective().train(), []
    layer = objective.student.distilbert.transformer.layer[0]
    layer.ffn.lin1.register_forward_hook(lambda *_: calls.append(None))
    objective.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = bare_batch(MASKS["ones"])
    objective.student(**batch).loss.backward()
    assert len(calls) == 2  # the second time in the backward pass


def test_a_teacher_gets_its_own_inputs(tmp_path):
    """Prevents a BERT teacher from being given zeros for the token types of a sentence pair."""
    trainer = updates.trainer_for("classification", tmp_path)
    rows = updates.sequences(160)
    for row in rows:
        size = len(row["input_ids"])
        row |= {"attention_mask": [1] * size, "labels": 1}
        row["token_type_ids"] = [0] * (size // 2) + [1] * (size - size // 2)
    trainer.train_dataset = rows
    seen = {}
    trainer.teachers[0].bert.register_forward_pre_hook(
        lambda _, args, inputs: seen.update(inputs), with_kwargs=True
    )
    trainer.train()
    assert seen["token_type_ids"].sum() > 0


def test_the_teacher_is_not_in_the_checkpoint(tmp_path):
    """Prevents a student's folder that holds its teacher, or a name that only a wrapper has."""
    trainer = updates.trainer_for("masked", tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    for folder in ("student", "checkpoint-1"):
        loaded, report = transformers.DistilBertForMaskedLM.from_pretrained(
            tmp_path / folder, output_loading_info=True
        )
        assert not any(report.values())
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, trainer.student.state_dict()[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "student")
    assert tokenizer.get_vocab() == trainer.processing_class.get_vocab()


@pytest.mark.parametrize(
    "settings",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"dataloader_num_workers": 1},
        {"tokens_per_batch": 96},
    ],
)
def test_works_with(settings, tmp_path):
    """Prevents a setting that people use from failing, or from training something else."""
    plain = updates.one_update("masked", tmp_path, per_device_train_batch_size=8)[0]
    layers = []
    teacher, student, _ = updates.pair("masked")
    student.distilbert.transformer.layer[0].ffn.lin1.register_forward_hook(
        lambda *_: layers.append(None)
    )
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    with_it = updates.one_update(
        "masked", tmp_path, teacher=teacher, student=student, **split, **settings
    )[0]
    assert with_it == pytest.approx(plain, rel=0.02 if "bf16" in settings else 1e-4)
    batches = len(layers) // (2 if "gradient_checkpointing" in settings else 1)
    assert batches >= 3, "several micro-batches made the update, each recomputed if it was to be"
    if "tokens_per_batch" not in settings:
        assert batches == 4


@pytest.mark.slow
def test_works_with_torch_compile(tmp_path):
    """Prevents a compiled student from being saved under names that nothing loads."""
    plain = updates.one_update("masked", tmp_path)[0]
    compiled, _, trainer = updates.one_update("masked", tmp_path, torch_compile=True)
    assert compiled == pytest.approx(plain, rel=1e-4)
    trainer.save_model(str(tmp_path / "student"))
    loaded, report = transformers.DistilBertForMaskedLM.from_pretrained(
        tmp_path / "student", output_loading_info=True
    )
    assert not any(report.values())
    assert not any("_orig_mod" in name for name in loaded.state_dict())


def test_a_frozen_position_table_stays(tmp_path):
    """Prevents weight decay or an optimizer from moving what was to be left alone."""
    teacher = tiny.bert(layers=2)
    student = make_student(teacher, num_layers=1, freeze_positions=True)
    positions = student.distilbert.embeddings.position_embeddings.weight
    before = positions.detach().clone()
    trainer = updates.trainer_for(
        "masked", tmp_path, student=student, teacher=teacher, max_steps=3, weight_decay=0.1
    )
    trainer.train()
    assert torch.equal(positions, before)


# Faults


def poison(module, *, at_call, value):
    calls = Counting(module)

    def hook(_module, _args, output):
        if calls.calls == at_call:
            state = output.last_hidden_state
            return type(output)(last_hidden_state=torch.full_like(state, value))
        return output

    module.register_forward_hook(hook)


def test_nan_from_the_teacher(tmp_path):
    """Fault 8: prevents a run whose weights all became NaN from ending with status 0."""
    trainer = updates.trainer_for("masked", tmp_path, max_steps=9, alpha_mse=0.0)
    poison(trainer.teachers[0].bert, at_call=3, value=float("nan"))
    trainer.add_callback(updates.Gradients())
    with pytest.raises(RunFailed, match=r"step 3 \(seed 42\): L_ce and L_cos are not finite"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert all(torch.isfinite(value).all() for value in trainer.student.parameters())


def test_nan_in_the_student(tmp_path):
    """Fault 8: prevents the optimizer from taking in what can't be undone."""
    trainer = updates.trainer_for("masked", tmp_path, max_steps=9, alpha_mse=0.0)
    poison(trainer.student.distilbert, at_call=2, value=float("nan"))
    with pytest.raises(RunFailed, match=r"step 2 .*L_ce and L_mlm and L_cos"):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in trainer.student.parameters())


def test_an_infinite_gradient(tmp_path):
    """Fault 8: prevents a finite loss from hiding a gradient that is not."""
    trainer = updates.trainer_for("masked", tmp_path, max_steps=9)
    weight = trainer.student.distilbert.embeddings.LayerNorm.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copies(trainer.student)
    with pytest.raises(RunFailed, match=r"step 1 .*the gradient is not finite"):
        trainer.train()
    assert all(value.equal(before[name]) for name, value in copies(trainer.student).items())


def test_a_teacher_with_a_hole(tmp_path):
    """Prevents hours of steps before a broken teacher is noticed."""
    teacher = tiny.bert(layers=3)
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"layer\.1\.output\.dense\.weight contains NaN"):
        updates.trainer_for("masked", tmp_path, teacher=teacher)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (lambda: tiny.bert(layers=3, vocab_size=161), "161"),
        (lambda: tiny.bert(layers=1), "layers"),
        (lambda: tiny.bert(layers=3, hidden=64), "alpha_cos"),
        (lambda: tiny.gpt2(layers=3, vocab_size=160), "one predicts the next token"),
    ],
)
def test_pairs_that_do_not_fit(teacher, said, tmp_path):
    """Fault 16: prevents a pair that can't read one batch from being trained on nonsense."""
    with pytest.raises(UserError, match=said):
        updates.trainer_for("masked", tmp_path, teacher=teacher())


def test_tasks_that_do_not_fit(tmp_path):
    """Prevents soft targets over labels that mean something else."""
    other = tiny.bert(model_class=transformers.BertForSequenceClassification, num_labels=2)
    with pytest.raises(UserError, match="the student's labels"):
        updates.trainer_for("classification", tmp_path, teacher=other)
    tagger = tiny.bert(model_class=transformers.BertForTokenClassification, num_labels=3)
    with pytest.raises(UserError, match="ForSequenceClassification and the teacher's ForToken"):
        updates.trainer_for("classification", tmp_path, teacher=tagger)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature: must be above 0"),
        ({"learning_rate": "1e-4"}, "learning_rate: '1e-4' is not a number"),
        ({"alpha_ce": -1.0}, "alpha_ce: must be 0 or more"),
        ({"fp16": True}, "--fp16 is not supported here"),
        ({"fsdp": "full_shard"}, "--fsdp is not supported here"),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor is not supported"),
        ({"mlm_probability": 0.0}, "mlm_probability: must be above 0"),
    ],
)
def test_arguments_are_checked(settings, said, tmp_path):
    """Fault 15: prevents a setting that the Trainer would take and then not do."""
    with pytest.raises(UserError, match=said):
        DistilTrainingArguments(output_dir=str(tmp_path), **settings)


def test_weights_follow_what_is_distilled(tmp_path):
    """Prevents L_mlm on a model that predicts the next word, and a loss of nothing."""
    arguments = DistilTrainingArguments(output_dir=str(tmp_path))
    assert arguments.weights("masked")["alpha_mlm"] == 2
    assert arguments.weights("causal") == {
        **dict.fromkeys(("alpha_mlm", "alpha_mse", "alpha_rel", "alpha_task"), 0.0),
        "alpha_ce": 5,
        "alpha_clm": 2,
        "alpha_cos": 1,
    }
    with pytest.raises(UserError, match="a causal student has no such term"):
        DistilTrainingArguments(output_dir=str(tmp_path), alpha_mlm=1.0).weights("causal")
    nothing = {"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_cos": 0.0}
    with pytest.raises(UserError, match="all weights are 0"):
        DistilTrainingArguments(output_dir=str(tmp_path), **nothing).weights("masked")


def test_the_paper_preset(tmp_path):
    """Prevents the published recipe from drifting."""
    arguments = DistilTrainingArguments.preset(
        "paper", output_dir=str(tmp_path), num_train_epochs=1
    )
    assert arguments.learning_rate == 5e-4
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.adam_epsilon) == (0.9, 0.98, 1e-6)
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 250
    assert (arguments.mask_scope, arguments.warmup_steps) == ("batch", 0.05)
    assert arguments.num_train_epochs == 1


def test_the_optimizer_decays_no_norm_and_no_bias(tmp_path):
    """Prevents weight decay on DistilBERT's norms, which a filter by name would miss."""
    trainer = updates.trainer_for("masked", tmp_path, weight_decay=0.1)
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert decayed
    assert not [name for name in decayed if "norm" in name.lower() or name.endswith("bias")]


def test_no_secret_is_written(tmp_path, monkeypatch, capfd):
    """Fault 17: prevents a token of the environment in a file or a log."""
    secret = "hf_averysecrettokenindeed"
    monkeypatch.setenv("HF_TOKEN", secret)
    settings = {"save_strategy": "steps", "save_steps": 1, "log_level": "debug"}
    with pytest.raises(UserError, match="--hub_token is not supported here") as refused:
        updates.trainer_for("masked", tmp_path, hub_token=secret, **settings)
    assert secret not in str(refused.value)
    trainer = updates.trainer_for("masked", tmp_path, **settings)
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert not list(tmp_path.rglob("training_args.bin"))
    recorded = json.loads((tmp_path / "student" / "training_args.json").read_text())
    assert recorded["learning_rate"] == 5e-4
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err
    assert os.environ["HF_TOKEN"] == secret


def test_several_gpus_without_torchrun(tmp_path, monkeypatch):
    """Prevents nn.DataParallel from silently taking over where several GPUs are visible."""
    monkeypatch.setattr(DistilTrainingArguments, "n_gpu", property(lambda _: 4))
    with pytest.raises(UserError, match="torchrun --nproc_per_node 4"):
        updates.trainer_for("masked", tmp_path)


def test_processes_that_do_not_know_of_each_other(tmp_path, monkeypatch):
    """Prevents torchrun without a GPU or --use_cpu from training twice into one folder."""
    arguments = DistilTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    assert arguments.world_size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes were started"):
        check_settings(arguments, {}, "masked")


def test_several_held_out_texts(tmp_path):
    """Prevents a dictionary of data sets, which the Trainer takes, from being read as rows."""
    texts = {"near": updates.sequences(160), "far": updates.sequences(160, longest=40)}
    trainer = updates.trainer_for("masked", tmp_path, eval_data=texts)
    metrics = trainer.evaluate()
    assert metrics["eval_near_loss"] != metrics["eval_far_loss"]
    with pytest.raises(UserError, match="train_dataset is a dict of near, far"):
        updates.trainer_for("masked", tmp_path, data=texts)


def test_evaluation_before_any_training_data(tmp_path):
    """Prevents a trainer that only evaluates from needing a training set."""
    trainer = updates.trainer_for("masked", tmp_path, eval_data=updates.sequences(160))
    trainer.train_dataset = None
    assert trainer.evaluate()["eval_perplexity"] > 1


def test_predicting_without_labels(tmp_path):
    """Prevents a test split, which has no labels, from being unpredictable."""
    trainer = updates.trainer_for("classification", tmp_path)
    rows = [
        {key: row[key] for key in ("input_ids", "attention_mask")} for row in trainer.train_dataset
    ]
    assert trainer.predict(rows).predictions.shape == (8, 3)


@pytest.mark.parametrize(
    "settings",
    [{"model_init": lambda: None}, {"compute_loss_func": lambda *_: 0}],
)
def test_what_would_be_ignored_is_refused(settings, tmp_path):
    """Prevents a setting of the Trainer's that has no effect here from passing in silence."""
    teacher, student, data = updates.pair("masked")
    arguments = DistilTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(UserError, match=next(iter(settings))):
        DistilTrainer(student, arguments, teacher=teacher, train_dataset=data, **settings)


def test_a_launcher_that_asks_for_half_precision(tmp_path, monkeypatch):
    """Prevents `accelerate launch --mixed_precision fp16` from being a way around the refusal."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UserError, match="fp16"):
        updates.trainer_for("masked", tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_clock_runs_only_while_training(monkeypatch):
    """Prevents tokens per second that count the time before training, or of an evaluation."""
    now = [100.0]
    monkeypatch.setattr(step_metrics.time, "perf_counter", lambda: now[0])
    window = step_metrics.MetricsWindow({"ce": 1.0, "mlm": 1.0})
    now[0] += 50  # between the construction and the first step
    requested = window.begin_waiting()
    now[0] += 1
    window.end_waiting(requested)
    with window.paused():
        now[0] += 30
    now[0] += 3
    window.open_update(torch.tensor([10, 2, 80, 100]))
    window.close_update([2.0, 3.0])
    record = window.drain()
    assert record["tokens_per_second"] == 80 / 4
    assert record["wait_share"] == 1 / 4
    assert record["padding_share"] == pytest.approx(0.2)
    assert (record["loss_ce"], record["loss_mlm"]) == (0.2, 1.5)


def test_sequences_that_are_too_long(tmp_path):
    """Prevents an index error from deep inside the position table."""
    data = [{"input_ids": np.full(70, 7)}, {"input_ids": np.full(9, 7)}]
    trainer = updates.trainer_for("masked", tmp_path, data=data)
    with pytest.raises(UserError, match="the longest sequence has 70 tokens"):
        trainer.train()
