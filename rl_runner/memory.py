"""How much memory is free, so that what cannot fit is refused before it is allocated."""

from __future__ import annotations

import os
from multiprocessing import active_children
from pathlib import Path

from rl_runner.types import UserError

USABLE = 0.95  # share of the free memory; what takes more is refused


def require(what: str, wanted: int, remedy: str) -> None:
    """Check that the host's memory holds `wanted` bytes.

    Args:
        what: what needs them, after the key or group of keys that it belongs to.
        wanted: bytes.
        remedy: what the user can do instead.

    Raises:
        UserError: less is free; the message gives both numbers.
    """
    free = free_memory()
    if free is not None and wanted > USABLE * free:
        raise UserError(f"{what} takes {wanted / 1e9:,.2f} GB, but {free / 1e9:.2f} GB of memory are free; {remedy}")


def require_for_table(states: int, actions: int) -> None:
    """Check that a table of action values fits, and the copy of it that a checkpoint takes; raises UserError."""
    what = f"agent: a table of {states:,} states × {actions:,} actions, with its copy in a checkpoint,"
    require(what, 2 * 8 * states * actions, "use fewer states")


def require_for_inputs(inputs: int, units: int) -> None:
    """Check that the first layer of a network fits; raises UserError.

    Five copies of it are counted: weights, target network, gradients, and the two moments of Adam.
    """
    what = f"network.torso: a first layer of {inputs:,} inputs × {units:,} units, with target, gradients and Adam,"
    require(what, 5 * 4 * inputs * units, "use smaller observations, or a torso of your own that reads them")


def require_for_layer(inputs: int, units: int) -> None:
    """Check that the weights of a layer fit, so that it can be built; raises UserError."""
    what = f"network: a layer of {inputs:,} inputs × {units:,} units"
    require(what, 4 * inputs * units, "use fewer units, or smaller observations")


def free_memory() -> int | None:
    """Return the bytes that a process can still take, the container's limit counted in; None where it is unknown."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        limits.append(_numbers(meminfo)["MemAvailable:"] * 1024)
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    container = Path("/sys/fs/cgroup")
    limit = container / "memory.max"
    if limit.exists() and limit.read_text().strip() != "max":
        # What was read from files lately counts as used, but is given back when it is needed.
        used = int((container / "memory.current").read_text()) - _numbers(container / "memory.stat")["inactive_file"]
        limits.append(int(limit.read_text()) - used)
    return min(limits) if limits else None


def resident() -> int | None:
    """Return the bytes that this process and those of its environments hold in memory; None where it is unknown."""
    files = [Path(f"/proc/{process}/status") for process in ("self", *(p.pid for p in active_children()))]
    try:
        return sum(_numbers(file)["VmRSS:"] * 1024 for file in files)
    except (OSError, KeyError):  # not Linux, or a process that has just ended
        return None


def _numbers(file: Path) -> dict[str, int]:
    """Read lines such as "MemAvailable:  1234 kB"."""
    words = (line.split() for line in file.read_text().splitlines())
    return {name: int(number) for name, number, *_ in (line for line in words if line[1:2] and line[1].isdecimal())}
