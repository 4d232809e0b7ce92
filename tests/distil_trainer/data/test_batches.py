"""Batches: nothing lost or repeated, as many in every epoch and process, any step replayable."""

import pickle
import subprocess
import sys
import time
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from accelerate import skip_first_batches
from lines import PAD, lines, loader, masking
from places import TESTS

from angels_share.errors import UserError
from distil_trainer.data import batches as batches_module
from distil_trainer.data import sources as sources_module
from distil_trainer.data.batches import (
    BatchPlan,
    CausalCollator,
    EpochBatches,
    EpochLoader,
    Example,
    Key,
    StreamedBatches,
    TextStream,
    estimate_token_counts,
    stream_loader,
)
from distil_trainer.data.corpus import prepare_corpus
from distil_trainer.data.sequence_maker import CorpusOptions, SequenceMaker
from distil_trainer.data.sources import find_sources


def same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [{"tokens_per_batch": 256}, {"batch_size": 4}, {"batch_size": 1}])
def test_every_example_once_an_epoch_in_equally_many_batches(processes, size):
    """A schedule counts on len(): a batch more or less in one epoch or process hangs or drifts."""
    lengths = lines().lengths
    plan = BatchPlan(lengths, num_processes=processes, **size)
    orders = []
    for epoch in range(5):
        shares = [list(plan.epoch_batches(epoch, process)) for process in range(processes)]
        assert [len(share) for share in shares] == [len(plan)] * processes
        order = np.concatenate([batch for share in shares for batch in share])
        assert sorted(order) == list(range(len(lengths)))
        orders.append(tuple(order))
    assert len(set(orders)) == 5


@pytest.mark.parametrize("count", [3, 4, 5, 7, 100])
def test_few_examples_are_still_shared_out_evenly(count):
    """Four examples for three processes: one of them has to take two."""
    plan = BatchPlan([8] * count, batch_size=1, num_processes=3)
    seen = [b for process in range(3) for b in plan.epoch_batches(0, process)]
    assert all(len(batch) for batch in seen)
    assert sorted(np.concatenate(seen)) == list(range(count))


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_batches_keep_their_token_budget(processes):
    """The budget is what keeps a GPU from running out of memory: padding counts."""
    lengths = lines(500).lengths
    plan = BatchPlan(lengths, tokens_per_batch=256, num_processes=processes)
    for process in range(processes):
        for batch in plan.epoch_batches(2, process):
            width = -(-lengths[batch].max() // 8) * 8
            assert len(batch) * width <= 256


def test_lengths_of_a_narrow_type_do_not_overflow():
    """Prevents lengths that were kept in a byte each from being padded to 0."""
    lengths = [250, 9, 251, 8, 100, 249]
    narrow, wide = (
        BatchPlan(np.array(lengths, dtype=dtype), tokens_per_batch=512)
        for dtype in (np.uint8, np.int64)
    )
    assert narrow.padding_share == wide.padding_share
    one, other = (list(plan.epoch_batches(0, 0)) for plan in (narrow, wide))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in other]


def test_a_sequence_longer_than_the_budget_is_a_batch_of_its_own():
    """It must neither be dropped nor loop forever."""
    plan = BatchPlan([100, 8, 8], tokens_per_batch=16)
    assert sorted(len(batch) for batch in plan.epoch_batches(0, 0)) == [1, 2]


@pytest.mark.parametrize("size", [{"tokens_per_batch": 4096}, {"batch_size": 32}])
def test_padding_is_small_and_told_truly(size):
    """Padding is paid for in every product; the logged share must be the real one."""
    lognormal = np.random.default_rng(0).lognormal(4.2, 0.8, 20_000)
    lengths = np.clip(lognormal, 12, 512).astype(int)  # paragraphs of Wikipedia are about so
    plan = BatchPlan(lengths, **size)
    padded = sum(
        len(batch) * (-(-lengths[batch].max() // 8) * 8) for batch in plan.epoch_batches(1, 0)
    )
    assert plan.padding_share < 0.05
    assert plan.padding_share == pytest.approx(1 - lengths.sum() / padded, abs=1e-12)


def test_processes_get_neighbours_in_length_at_every_step():
    """A step is as slow as its longest batch: 512 tokens beside 16 would leave one process idle."""
    lengths = np.clip(np.random.default_rng(0).lognormal(4, 0.8, 5000), 12, 512).astype(int)
    plan = BatchPlan(lengths, tokens_per_batch=2048, num_processes=2)
    steps = zip(plan.epoch_batches(0, 0), plan.epoch_batches(0, 1), strict=True)
    widths = np.array([[lengths[a].max(), lengths[b].max()] for a, b in steps])
    assert np.mean(np.abs(widths[:, 0] - widths[:, 1]) <= 16) > 0.97


def test_lengths_are_mixed_over_an_epoch():
    """Batches in order of length would train on short lines first and on long ones last."""
    lengths = lines(2000).lengths
    batches = list(BatchPlan(lengths, batch_size=4).epoch_batches(0, 0))
    means = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.2


def test_partners_change_between_epochs():
    """Batches that keep their members are not a reshuffled epoch."""
    plan = BatchPlan([40] * 400, batch_size=4)
    first, second = ({frozenset(b.tolist()) for b in plan.epoch_batches(e, 0)} for e in (0, 1))
    assert len(first & second) == 0


def test_the_seed_decides_the_order():
    """Five seeds with one order of the data would be no five seeds."""
    orders = [
        np.concatenate(list(BatchPlan([8] * 50, batch_size=5, seed=seed).epoch_batches(0, 0)))
        for seed in (1, 1, 2)
    ]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 2, "num_processes": 4}, "3 examples for 4 processes"),
        ({}, "batch_size"),
        ({"batch_size": 2, "tokens_per_batch": 64}, "batch_size"),
        ({"batch_size": 0}, "positive"),
        ({"tokens_per_batch": -1}, "positive"),
    ],
)
def test_impossible_plans_are_refused(options, named):
    """An empty share would hang the other processes."""
    with pytest.raises(UserError, match=named):
        BatchPlan([8, 8, 8], **options)


def test_keys_carry_the_epoch_that_was_set():
    """Workers and collators know the epoch from the key alone."""
    batches = EpochBatches(BatchPlan(lines().lengths, batch_size=8))
    for epoch in (0, 4):
        batches.set_epoch(epoch)
        assert {key.epoch for batch in batches for key in batch} == {epoch}


def test_masking_batch_is_what_the_model_needs():
    """A wrong row index would distil padding, silently."""
    for batch in loader():
        ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
        assert ids.shape == mask.shape == labels.shape
        assert ids.shape[1] % 8 == 0
        assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
        assert (ids[mask == 0] == PAD).all()
        assert (labels[mask == 0] == -100).all()
        assert torch.equal(batch["attended_rows"], mask.flatten().nonzero().flatten())
        quota = torch.ceil(0.15 * mask.sum(1)).clamp(max=mask.sum(1) - 2)
        assert torch.equal((labels != -100).sum(1), quota.long())


def test_tokens_that_a_data_set_calls_special_are_no_targets():
    """Prevents a special_tokens_mask from being taken, and then ignored."""
    words = np.arange(10, 30)
    given = {"special_tokens_mask": (words < 20).astype(np.int64)}
    batch = [Example(Key(0, 0), words, given), Example(Key(0, 1), words)]
    plain = masking()([Example(Key(0, n), words) for n in (0, 1)])["labels"]
    masked = masking()(batch)["labels"]
    assert (plain[0, :10] != -100).any()
    assert (masked[0, :10] == -100).all()
    assert (masked[0] != -100).sum() == 3
    assert torch.equal(masked[1], plain[1])


def test_unmasked_tokens_are_the_corpus():
    """What is put back together from input and labels must be the lines, each once."""
    sequences = lines()
    seen = []
    for batch in loader(sequences):
        true = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
        rows = zip(true, batch["attention_mask"].sum(1), strict=True)
        seen += [tuple(row[:length].tolist()) for row, length in rows]
    assert sorted(seen) == sorted(tuple(row.tolist()) for row in sequences)


def test_causal_batch_has_every_token_as_its_label():
    """GPT-2 gets its own tokens, unshifted and unmasked, and padding is no label."""
    for batch in loader(collate=CausalCollator(PAD)):
        attended = batch["attention_mask"] == 1
        assert torch.equal(batch["labels"][attended], batch["input_ids"][attended])
        assert (batch["labels"][~attended] == -100).all()


@pytest.mark.parametrize("scope", ["example", "batch"])
def test_workers_give_the_same_batches(scope):
    """Workers must not bring randomness, or the epoch of another pass, of their own."""
    alone = loader(collate=masking(scope))
    helped = loader(collate=masking(scope), num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        alone.set_epoch(epoch)
        helped.set_epoch(epoch)
        same(list(alone), list(helped))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_inside_an_epoch_gives_the_same_batches(workers):
    """A resumed run must see what it would have seen, as the Trainer skips and sets the epoch."""
    plain = loader()
    plain.set_epoch(3)
    expected = list(plain)
    for start in (1, len(expected) - 1):
        resumed = skip_first_batches(loader(num_workers=workers), start)
        resumed.batch_sampler.batch_sampler.set_epoch(3)
        same(list(resumed), expected[start:])


def test_epochs_differ_and_evaluation_does_not():
    """Training sees new masks every epoch; evaluation is the same every time it is asked."""
    subject = loader()
    first, again = list(subject), list(subject)
    same(first, again)
    subject.set_epoch(1)
    shapes = [[tuple(b["input_ids"].shape) for b in epoch] for epoch in (first, list(subject))]
    assert shapes[0] != shapes[1]


def tell(workers, signal_name):
    """Sends a signal from another process than the workers' parent, as a scheduler would."""
    pids = " ".join(str(worker.pid) for worker in workers)
    subprocess.run(["/bin/sh", "-c", f"kill -{signal_name} {pids}"], check=True)
    time.sleep(0.2)


@pytest.mark.parametrize("signal_name", ["TERM", "INT"])
def test_workers_outlive_a_signal_to_the_group(signal_name):
    """Prevents a preemption from killing the workers, and with them the step that saves."""
    expected = list(loader())
    helped = iter(loader(num_workers=2, prefetch_factor=1))
    # One batch of each worker: one that is still starting can't be deaf yet.
    first = [next(helped), next(helped)]
    tell(helped._workers, signal_name)
    assert all(worker.is_alive() for worker in helped._workers)
    same([*first, *helped], expected)


def test_streaming_workers_outlive_a_signal_to_the_group(stream):
    """The same for a corpus that is streamed."""
    sources, maker = stream
    batches = StreamedBatches(TextStream(sources, maker), batch_size=1)
    helped = iter(stream_loader(batches, list, num_workers=1))
    next(helped)
    tell(helped._workers, "TERM")
    rest = [example for (example,) in islice(helped, 59)]
    assert len({example.key.example for example in rest if example.key.epoch == 0}) == 59


def test_workers_end_by_themselves():
    """Prevents a wait of seconds at every epoch's end for workers that have to be told twice."""
    helped = iter(loader(num_workers=1))
    (worker,), told = helped._workers, []
    terminate = worker.terminate
    worker.terminate = lambda: told.append(worker) or terminate()
    assert len(list(helped)) == len(loader())
    worker.join(30)
    assert (told, worker.exitcode) == ([], 0)


def test_workers_where_no_signal_can_be_waited_for(monkeypatch):
    """Prevents macOS and Windows, which have no sigwaitinfo, from loading nothing."""
    monkeypatch.setattr(batches_module, "sys", SimpleNamespace(platform="darwin"))
    same(list(loader(num_workers=1)), list(loader()))


WITH_THREADS = """
import os, signal, subprocess, threading, time
from lines import loader
if __name__ == "__main__":
    sleeper = lambda: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    os.register_at_fork(after_in_child=sleeper)
    helped = iter(loader(num_workers=1, prefetch_factor=1))
    next(helped)
    (worker,) = helped._workers
    subprocess.run(["/bin/sh", "-c", f"kill -TERM {worker.pid}"], check=True)
    time.sleep(0.2)
    print(len(list(helped)), signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    os._exit(0)  # the sleeping threads' interpreters need not be waited for
"""


def test_workers_with_threads_of_libraries_outlive_a_signal():
    """Prevents a preemption from killing workers in which Arrow, say, has started threads."""
    here = [sys.executable, "-c", WITH_THREADS]
    ended = subprocess.run(here, capture_output=True, text=True, timeout=60, check=False)
    count, is_blocked = ended.stdout.split()
    assert int(count) == len(list(loader())) - 1
    assert is_blocked == "False"  # in the parent it is as before


UNFINISHED = """
from lines import loader
batches = iter(loader(num_workers=2))
next(batches)
print("done")
"""


def test_a_script_with_an_unfinished_loader_ends():
    """Prevents workers that obey no signal from keeping an interpreter from its exit, for ever."""
    here = [sys.executable, "-c", UNFINISHED]
    ended = subprocess.run(
        here, cwd=TESTS / "makers", capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "done\n"


@pytest.mark.parametrize("workers", [0, 2])
def test_prefetching_needs_workers(workers):
    """Prevents --dataloader_prefetch_factor without workers from ending in a ValueError."""
    loaded = loader(num_workers=workers, prefetch_factor=5)
    assert loaded.prefetch_factor == (5 if workers else None)
    same(list(loaded), list(loader()))


def test_a_stream_is_loaded_as_asked(stream):
    """Prevents settings of the loader from being dropped where a corpus is streamed."""
    batches = StreamedBatches(TextStream(*stream), batch_size=1)
    asked = stream_loader(batches, list, num_workers=1, pin_memory=True, prefetch_factor=7)
    assert (asked.num_workers, asked.pin_memory, asked.prefetch_factor) == (1, True, 7)
    assert not stream_loader(batches, list).pin_memory


def test_global_generator_is_not_touched():
    """A stock DataLoader's iter() draws from the global generator: resuming would shift dropout."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(before, torch.get_rng_state())


def test_collators_survive_pickling():
    """Workers that are spawned, not forked, get a pickled collator and must mask alike."""
    examples = [Example(Key(1, i), row) for i, row in enumerate(lines(4))]
    copy = pickle.loads(pickle.dumps(masking()))
    same([copy(examples)], [masking()(examples)])


def test_two_processes_share_what_one_would_see():
    """The masks of scope "example" don't depend on how many processes share the epoch."""
    sequences = lines()

    def rows(processes):
        found = []
        for process in range(processes):
            plan = BatchPlan(sequences.lengths, batch_size=4, num_processes=processes, seed=3)
            for batch in EpochLoader(sequences, plan, masking(), process_index=process):
                both = zip(
                    batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
                )
                found += [(*ids[m == 1].tolist(), *y[m == 1].tolist()) for ids, y, m in both]
        return sorted(found)

    assert rows(1) == rows(2) == rows(3)


@pytest.fixture
def stream(tmp_path):
    """60 different lines in a file, and what turns them into sequences."""
    words = " ".join(tiny.LINES).split()
    file = tmp_path / "a.txt"
    file.write_text("\n".join(" ".join(words[i : i + 4 + i % 9]) for i in range(60)))
    options = CorpusOptions(min_tokens=1, max_length=16, validation_fraction=0)
    return find_sources([str(file)]), SequenceMaker(tiny.wordpiece(), options)


def first_epoch(batches):
    found = []
    for batch in batches:
        if batch[0].key.epoch:
            return found
        found += [(example.key.example, tuple(example.tokens.tolist())) for example in batch]
    return None


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_streaming_processes_share_the_corpus(stream, tmp_path, processes, monkeypatch):
    """Every process reading everything would be one corpus seen `processes` times."""
    monkeypatch.setattr(sources_module, "_CHUNK_CHARACTERS", 300)
    sources, maker = stream
    shares = [
        first_epoch(
            StreamedBatches(
                TextStream(sources, maker),
                process_index=i,
                num_processes=processes,
                tokens_per_batch=64,
            )
        )
        for i in range(processes)
    ]
    prepared = prepare_corpus(
        [str(sources[0].path)], tiny.wordpiece(), cache_dir=tmp_path, options=maker.options
    ).train
    everything = [example for share in shares for example in share]
    assert sorted(tokens for _, tokens in everything) == sorted(tuple(r.tolist()) for r in prepared)
    assert len({number for number, _ in everything}) == len(prepared)
    assert min(map(len, shares)) > 0.6 * max(map(len, shares))


def test_streaming_workers_share_their_process_part(stream):
    """Two workers must read two halves, and go on into the next epoch in another order."""
    sources, maker = stream
    batches = StreamedBatches(TextStream(sources, maker), batch_size=1, seed=1)
    expected = sorted(tokens for _, tokens in first_epoch(batches))
    total = len(expected)
    loaded = stream_loader(batches, list, num_workers=2)
    seen = [batch[0] for batch in islice(iter(loaded), 2 * total)]
    epochs = [[e for e in seen if e.key.epoch == epoch] for epoch in (0, 1)]
    assert [len(epoch) for epoch in epochs] == [total, total]
    orders = [[tuple(e.tokens.tolist()) for e in epoch] for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1]) == expected
    assert orders[0] != orders[1]


def test_streamed_batches_can_be_masked(stream):
    """The same collator serves a stream: its examples have numbers to draw masks by."""
    sources, maker = stream
    loaded = stream_loader(
        StreamedBatches(TextStream(sources, maker), tokens_per_batch=64), masking()
    )
    again = stream_loader(
        StreamedBatches(TextStream(sources, maker), tokens_per_batch=64), masking()
    )
    same(list(islice(loaded, 20)), list(islice(again, 20)))


def test_a_reader_without_text_is_refused(stream):
    """More processes than lines: the last one would wait for ever, and so would the others."""
    sources, maker = stream
    batches = StreamedBatches(
        TextStream(sources, maker), process_index=60, num_processes=61, tokens_per_batch=64
    )
    with pytest.raises(UserError, match="no sequence for reader 61 of 61"):
        next(iter(batches))


def test_token_counts_are_estimated_from_the_first_sequences(stream, tmp_path):
    """Weights from a wrong count would mask frequent words; all of the text gives the true one."""
    sources, maker = stream
    prepared = prepare_corpus(
        [str(sources[0].path)], tiny.wordpiece(), cache_dir=tmp_path, options=maker.options
    )
    assert (estimate_token_counts(TextStream(sources, maker)) == prepared.token_counts).all()


def test_token_counts_are_estimated_from_no_fewer_sequences(stream, monkeypatch):
    """Prevents an estimate from fewer sequences than were asked for, or from the whole corpus."""
    monkeypatch.setattr(sources_module, "_CHUNK_CHARACTERS", 300)
    sources, maker = stream
    chunks = list(maker.sequences(sources_module.text_chunks(sources_module.texts_of(sources))))
    first, second = (len(pieces.lengths) for pieces in chunks[:2])
    assert len(chunks) > 2
    tokens = [len(pieces.tokens) for pieces in chunks]
    for asked, read in ((1, 1), (first, 1), (first + 1, 2), (first + second, 2)):
        counts = estimate_token_counts(TextStream(sources, maker), asked)
        assert counts.sum() == sum(tokens[:read])
