"""Which run comes next."""

from work_for_sweeps import job

from eval_harness.sweep.queue import Job, Queue, unique


def test_a_worker_keeps_what_it_has_loaded():
    """Prevents a model from being loaded and a task tokenized for every run anew."""
    jobs = [job(task, seed) for seed in (1, 2) for task in ("rte", "cola")]
    jobs += [job("sst2", seed, cost=5.0) for seed in (1, 2)]
    queue = Queue(jobs)
    first = queue.take(None, set())
    assert first.run.task.name == "sst2"  # the dearest, so that the end isn't one long queue
    second = queue.take(None, {first.group})
    assert second.run.task.name == "rte"
    assert queue.take(second.group, {first.group}).run.task.name == "rte"
    assert queue.take(second.group, {first.group}).run.task.name == "cola"
    assert queue.take(first.group, set()).run.task.name == "sst2"
    assert queue.take(first.group, set()).run.task.name == "cola"
    assert queue.take(first.group, set()) is None


def test_what_others_wait_for_comes_first():
    """Prevents all workers but one from idling at the end, while a late teacher learns."""
    teacher = job("rte", 2, "bert")
    queue = Queue([job("cola", 1, cost=9.0), job("rte", 1, "bert"), teacher,
                   job("rte", 1, needs=teacher.key)])  # fmt: skip
    assert queue.take(None, set()) is teacher


def test_a_long_queue_is_not_walked_over_for_each_job(monkeypatch):
    """Prevents thousands of seeds of one model from costing minutes: `take` was quadratic."""
    looked_at = []
    original = Job.key.fget

    def counted(self):
        looked_at.append(self)
        return original(self)

    jobs = [job("rte", seed, cost=0.1) for seed in range(300)]
    jobs += [job("rte", seed, needs=jobs[7].key) for seed in range(300, 600)]
    monkeypatch.setattr(Job, "key", property(counted))
    queue = Queue(jobs)
    taken, last = [], None
    while queued := queue.take(last, set()):
        taken.append(queued.run.seed)
        last = queued.group
        queue.done(queued.key)
    assert taken == [7, *(seed for seed in range(600) if seed != 7)]
    assert len(queue) == 0
    assert len(looked_at) < 3 * len(jobs)


def test_what_is_left_is_left_no_more():
    """Prevents a sweep that gave up from beginning something, or from forgetting what it didn't."""
    first, other, student = job("rte", 1), job("cola", 1), job("rte", 2, needs="a teacher's")
    queue = Queue([first, student, other])
    queue.take(None, set())
    assert {each.key for each in queue.rest()} | {first.key} == {
        each.key for each in (first, other, student)
    }
    assert (len(queue), queue.failed("a teacher's"), queue.rest()) == (0, [], [])


def test_one_run_wanted_twice_is_one_run():
    """Prevents a teacher that is evaluated too from being trained twice, or losing its weights."""
    plain, other = job("rte", 1), job("rte", 2)
    kept = job("rte", 1)
    object.__setattr__(kept.run, "save_weights_to", "models/x")
    assert unique([plain, other, kept]) == [kept, other]
    assert unique([kept, other, plain]) == [kept, other]
