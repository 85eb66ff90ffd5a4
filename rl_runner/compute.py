"""What computes: the device, how many CPU threads, and where their memory comes from."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch
from torch import Tensor

from rl_runner.types import Array, UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # as Linux names them
ALL_THREADS = torch.get_num_threads()  # as torch finds the machine, before any run says otherwise


def device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the GPU where there is one.

    Raises:
        UserError: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as e:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(f"device: must be {', '.join(there)} or auto on this machine, got {name!r}") from e
    return found


def precision(name: str, device: torch.device) -> str:
    """Return the precision of that name; "auto" is bf16 where the hardware is fast at it, else fp32.

    Fast are CPUs with instructions for bf16, and CUDA GPUs of capability 8.0 or higher.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and not BF16_FLAGS.isdisjoint(_cpu_flags())
    return "bf16" if fast else "fp32"


def _cpu_flags() -> set[str]:
    """Return the features that Linux lists of the first processor; nothing on other systems."""
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    flags = next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "")
    return set(flags.split())


def frames_device(wanted: str, device: torch.device, frames: int, nbytes: int) -> torch.device:
    """Return the device in whose memory the replay's frames lie.

    Args:
        wanted: "host", "device", or "auto": images on a GPU whose free memory they fill by half at most, else on the
            host. Small observations are as well off there: their row numbers would take as long to cross.
        device: where networks and batches are.
        frames: how many.
        nbytes: of one frame.

    Raises:
        UserError: another word, or a GPU that cannot hold them.
    """
    if wanted not in ("host", "device", "auto"):
        raise UserError(f"replay.frames: must be one of host, device, auto, got {wanted!r}")
    host = torch.device("cpu")
    if wanted == "host" or device.type == "cpu" or (wanted == "auto" and device.type != "cuda"):
        return host
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    if wanted == "auto":
        return device if nbytes >= 1000 and free is not None and frames * nbytes <= free / 2 else host
    if free is not None and frames * nbytes > 0.95 * free:
        raise UserError(
            f"replay.frames: {frames * nbytes / 1e9:.2f} GB do not fit on {device}, where {free / 1e9:.2f} GB are "
            f"free; replay.frames=host keeps them in the computer's own memory"
        )
    return device


def set_threads(wanted: int | str, images: bool) -> int:
    """Set the number of CPU threads and return it; it is part of exact resume.

    Args:
        wanted: a number, or "auto": small networks are fastest on one thread, convolutions use all cores.
        images: observations are images.
    """
    threads = int(wanted) if wanted != "auto" else ALL_THREADS if images else 1
    torch.set_num_threads(threads)
    return threads


def make_convolutions_repeatable() -> None:
    """Choose cuDNN's deterministic convolutions, so that a resumed run on a GPU is the uninterrupted one.

    The default ones sum in an order that varies. The deterministic ones take no longer.
    """
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> None:
    """Tell the C library to keep what is freed for the next tensors of that size, where it is glibc; else do nothing.

    By default it hands large blocks back to the system at once, and each update pays for fresh pages: 10 to 15 % of
    an update on images.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(M_TRIM_THRESHOLD, 1 << 30)
    # Larger blocks, the replay memory's, stay apart. Older versions refuse more than 32 MB.
    if not mallopt(M_MMAP_THRESHOLD, 256 << 20):
        mallopt(M_MMAP_THRESHOLD, 32 << 20)


def on_device(array: Array | Tensor, device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    The copy to a GPU waits for nothing: it is made from pinned memory, after the work that the GPU was given before.
    """
    tensor = torch.as_tensor(array)
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
