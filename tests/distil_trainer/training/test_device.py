"""Training and evaluation on a device that has no float64 and shares no memory with the CPU."""

import pretend_device
import pytest
import updates


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What each kind logs on the CPU and on such a device, and what a GPU's host would wait for.

    All from one process, whose start takes longer than what it does.
    """
    waits = [f"waits:{kind}" for kind in updates.KINDS]
    return pretend_device.both(tmp_path_factory.mktemp("device"), *updates.KINDS, *waits, "asking")


@pytest.mark.parametrize("kind", updates.KINDS)
def test_no_objective_needs_float64_on_its_device(kind, seen):
    """Prevents a run that ends at its first update on a Mac, whose GPU has no float64.

    And a tensor left behind on the CPU, which no CPU would ever show.
    """
    on_cpu, on_device = seen[kind]["cpu"], seen[kind][pretend_device.NAME]
    assert on_device.pop("device") == pretend_device.NAME
    assert on_cpu.pop("device") == "cpu"
    assert {"grad_norm", "eval_loss"} < on_cpu.keys()
    assert on_device == pytest.approx(on_cpu, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kind", updates.KINDS)
def test_an_update_asks_the_device_once(kind, seen):
    """Prevents a GPU that idles while the host waits for an answer before it goes on.

    Two padded micro-batches make the update. Copies to the device must be of pinned memory and not
    block; nothing may depend on a value there, until the sums are read at the end.
    """
    ((operation, lines),) = seen[f"waits:{kind}"]
    assert operation == "aten::_to_copy"
    assert "_get_grad_norm: *sums, stop_code, norm_value = " in lines[-2]


def test_what_would_wait_is_seen(seen):
    """Prevents a count that is low because the device is blind."""
    assert seen["asking"] == {
        "item": 1, "bool": 1, "tolist": 1, "nonzero": 1, "by mask": 1, "set by mask": 1, "cpu": 1,
        "blocking copy": 1, "pageable copy": 1, "copied into": 1, "made there": 1,
        "pinned copy": 0, "copy back": 0, "filled there": 0, "by index": 0, "where": 0,
    }  # fmt: skip
