"""Errors as one line."""

import torch

from rl_runner.cli import failures
from rl_runner.cli.table import VERBS


def test_the_full_memory_of_a_gpu_is_told_in_one_line() -> None:
    text = "CUDA out of memory. Tried to allocate 105.15 GiB. GPU 0 has a total capacity of 79.19 GiB of which 30.00 "
    text += "GiB is free. Including non-PyTorch memory, this process has 49.18 GiB memory in use. See documentation"
    failure = failures.failure(VERBS["train"], [], torch.OutOfMemoryError(text))
    assert failure.exit_code == 2
    assert not failure.trace
    assert failure.line == (
        "device: the GPU's memory is full: Tried to allocate 105.15 GiB. GPU 0 has a total capacity of 79.19 GiB of "
        "which 30.00 GiB is free; use a smaller batch_size or network, or replay.frames=host"
    )
