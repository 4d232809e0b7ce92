"""What the system tells of the processor."""

from pathlib import Path

import pytest

from angels_share.hardware import processor_flags

X86 = "processor : 0\nflags\t\t: fpu avx avx2 amx_int8_other avx512f avx512_vnni\n\nprocessor : 1\n"


@pytest.mark.parametrize(
    ("told", "found"),
    [(X86, ("avx2", "avx512f", "avx512_vnni")), ("Features : fp asimd asimddp\n", ()), (None, ())],
)
def test_flags_of_int8(monkeypatch, told, found):
    """Prevents a part of a name that passes for a flag, and a failure without /proc/cpuinfo."""

    def read(*_args, **_options):
        if told is None:
            raise FileNotFoundError
        return told

    monkeypatch.setattr(Path, "read_text", read)
    assert processor_flags() == found
