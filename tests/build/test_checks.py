"""Values against ranges, types and memory."""

import pytest

from rl_runner import memory
from rl_runner.build import checks
from rl_runner.types import UserError

# Memory.


def test_replay_that_does_not_fit_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000_000)
    checks.memory_for_replay(100_000, 7_074)  # 0.71 GB
    with pytest.raises(UserError, match=r"1,000,000 rows take 7\.\d\d GB, but 1\.00 GB .* at most 113,") as e:
        checks.memory_for_replay(1_000_000, 7_074)
    most = int(str(e.value).split("at most ")[1].split()[0].replace(",", ""))
    checks.memory_for_replay(most, 7_074)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    checks.memory_for_replay(10**12, 7_074)
