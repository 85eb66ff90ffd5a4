"""Devices, threads and memory."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from rl_runner import compute
from rl_runner.types import UserError


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("wanted", "images", "threads"), [("auto", False, 1), ("auto", True, 4), (2, False, 2), (1, True, 1)]
)
def test_threads_follow_the_observations_unless_told_otherwise(wanted, images, threads, monkeypatch):
    monkeypatch.setattr(compute, "ALL_THREADS", 4)
    assert compute.set_threads(wanted, images) == torch.get_num_threads() == threads


def test_devices():
    assert compute.device("cpu") == torch.device("cpu")
    here = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert compute.device("auto").type == here
    for name in ("cuda:99", "gpu", "meta", ""):
        with pytest.raises(UserError, match=r"device: must be cpu.* or auto on this machine, got"):
            compute.device(name)


@pytest.mark.parametrize(
    ("info", "wanted"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "bf16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bf16"),
        ("flags\t\t: fpu avx2 avx512f avx_bf16\n", "fp32"),
        ("Features\t: fp asimd bf16\n", "fp32"),
        (None, "fp32"),  # no such file: macOS
    ],
)
def test_precision_follows_the_processor_unless_told_otherwise(info, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "CPU_INFO", tmp_path / "cpuinfo")
    if info is not None:
        compute.CPU_INFO.write_text(info)
    cpu = torch.device("cpu")
    assert compute.precision("auto", cpu) == wanted
    assert [compute.precision(name, cpu) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert compute.precision("auto", torch.device("mps")) == "fp32"


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_precision_follows_the_gpu(capability, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute.precision("auto", torch.device("cuda")) == wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_convolutions_on_a_gpu_repeat_themselves_bit_for_bit(precision):
    device = compute.device("cuda")
    compute.make_convolutions_repeatable()
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(4, 32, 8, 4), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 4, 2), torch.nn.Conv2d(64, 64, 3)
    ).to(device)
    x = torch.rand(64, 4, 84, 84, device=device)
    gradients = []
    for _ in range(20):
        layers.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
            layers(x).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in layers.parameters()]))
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_memory_is_kept_for_the_next_tensor():
    """In a process of its own, which takes and frees six tensors of 1, of 8 and of 40 MB again and again."""
    code = """
import resource, torch
from rl_runner import compute
if not hasattr(compute.ctypes.CDLL(None), "mallopt"):
    raise SystemExit
compute.keep_freed_memory()
def rounds(n, megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        tensors = [torch.ones(megabytes * 250_000) for _ in range(6)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for megabytes in (1, 8, 40):
    rounds(20, megabytes)
    faults = rounds(10, megabytes)
    assert faults < 1000, (megabytes, faults)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_frames_lie_on_the_host_unless_a_gpu_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu, mps = (torch.device(name) for name in ("cpu", "cuda:0", "mps"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8_000_000_000, 16_000_000_000))
    place = compute.frames_device
    assert [place(w, cpu, 1, 7056) for w in ("auto", "host", "device")] == [cpu] * 3
    assert place("auto", gpu, 4_000_000, 1_000) == gpu
    assert place("auto", gpu, 4_000_001, 1_000) == cpu  # networks need room too
    assert place("auto", gpu, 1_000, 999) == cpu  # too small to be worth it
    assert place("device", gpu, 1_000, 999) == gpu
    assert place("device", gpu, 7_000_000, 1_000) == gpu
    assert place("host", gpu, 1, 7056) == cpu
    assert place("auto", mps, 1, 7056) == cpu
    assert place("device", mps, 1, 7056) == mps
    with pytest.raises(UserError, match=r"replay.frames: 7.70 GB do not fit on cuda:0, where 8.00 GB are free"):
        place("device", gpu, 7_700_000, 1_000)
    with pytest.raises(UserError, match=r"replay.frames: must be one of host, device, auto, got 'gpu'"):
        place("gpu", cpu, 1, 1)
