"""Fine-tuning and evaluation on a device without float64, which has its own memory."""

import pretend_device
import pytest

TASKS = ("rte", "stsb", "squad")


@pytest.mark.slow
def test_no_task_needs_float64_on_its_device(tmp_path):
    """Prevents a sweep that fails on a Mac: labels of a regression are float64 on the CPU."""
    for task, logged in pretend_device.both(tmp_path, *TASKS).items():
        on_cpu, on_device = logged["cpu"], logged[pretend_device.NAME]
        assert on_device.pop("device") == pretend_device.NAME
        assert on_cpu.pop("device") == "cpu"
        assert on_device == pytest.approx(on_cpu, rel=1e-3), task
