"""Checkpoints: exact, whole or not there, and harmless whatever a stranger wrote into them."""

import hashlib
import json
import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_runner.rng import generator_state
from rl_runner.run import checkpoint
from rl_runner.run.checkpoint import Checkpoints, Damaged, about, load, save
from rl_runner.run.files import MANIFEST
from rl_runner.types import UserError


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape, dtype and every bit."""
    if isinstance(b, torch.Tensor):
        return (
            isinstance(a, torch.Tensor)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and bytes(a.contiguous().reshape(-1).view(torch.uint8))
            == bytes(b.contiguous().reshape(-1).view(torch.uint8))
        )
    if isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same(a[k], v) for k, v in b.items())
    if isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(b, float):
        return isinstance(a, float) and (a.hex() == b.hex() or (math.isnan(a) and math.isnan(b)))
    return type(a) is type(b) and a == b


LEAVES: dict[str, Any] = {
    "plain": [None, True, False, 0, -1, "", 'ü\n"$\\', 1.5, -0.0, 0.1, 5e-324],
    "far": [math.inf, -math.inf, math.nan, 2**53 + 1, -(2**63), 2**200, str(2**200)],
    "empty": [{}, [], (), [[]], ((),), {"a": {}}],
    "nested": {"a": [1, [2, (3, [4.0, None])], {"b": (5,)}], "c": {"d": {"e": [{}, {"f": True}]}}},
    "int keys": {0: "a", 5: {7: (1, 2)}, -1: None},
    "mixed keys": {1: "int", "1": "str", False: "bool", None: "none", 2.5: "float"},
    "our own words as keys": {"$tensor": 0, "$items": [[1, 2]], "$tuple": [3], "$array": {"$array": 9}},
    "arrays": [
        np.array(3.5),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(6.0).reshape(2, 3)[:, ::2],
        np.asfortranarray(np.arange(6.0, dtype=np.float32).reshape(2, 3)),
        np.zeros((0, 4), dtype=np.int64),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["ab", "c"]),
        np.array([np.nan, -0.0, np.inf], dtype=np.float16),
        np.arange(3, dtype=">i4"),
    ],
    "tensors": [
        torch.tensor(2.5),
        torch.tensor([[0.1, -3e38], [1e-40, float("nan")]], dtype=torch.bfloat16),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor([1.0, float("inf")], dtype=torch.float16),
        torch.arange(6).reshape(2, 3).t(),
        torch.zeros(0, 3, dtype=torch.float64),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.tensor([255], dtype=torch.uint8),
        torch.get_rng_state(),
    ],
    "generator": generator_state(np.random.default_rng(0)),
}


@pytest.mark.parametrize("large", [16 * 2**20, 0], ids=["small arrays", "every array in a file of its own"])
@pytest.mark.parametrize("name", LEAVES)
def test_round_trip_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, large: int) -> None:
    monkeypatch.setattr(checkpoint, "LARGE", large)
    save(tmp_path / "c", {"part": LEAVES[name], "other": 1}, {})
    got = load(tmp_path / "c")
    assert same(got["part"], LEAVES[name])
    assert got["other"] == 1
    assert set(got) == {"part", "other"}


def test_numpy_numbers_become_plain_ones_and_dict_kinds_plain_dicts(tmp_path: Path) -> None:
    save(tmp_path / "c", {"a": [np.float64(0.1), np.int64(3), np.bool_(True)], "b": OrderedDict(x=1)}, {})
    got = load(tmp_path / "c")
    assert same(got["a"], [0.1, 3, True])
    assert same(got["b"], {"x": 1})


def test_a_parameter_is_saved_as_it_stands(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    state = {"net": layer.state_dict(), "raw": layer.weight}
    save(tmp_path / "c", state, {})
    with torch.no_grad():
        layer.weight.zero_()
    assert torch.any(load(tmp_path / "c")["net"]["weight"] != 0)
    assert torch.equal(load(tmp_path / "c")["raw"], load(tmp_path / "c")["net"]["weight"])


def test_adam_goes_on_as_it_would_have(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Adam]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        return net, torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=0.1)

    def step(net: torch.nn.Linear, adam: torch.optim.Adam, i: int) -> None:
        adam.zero_grad()
        net(torch.full((1, 3), float(i))).pow(2).sum().backward()
        adam.step()

    net, adam = make()
    for i in range(3):
        step(net, adam, i)
    save(tmp_path / "c", {"agent": {"net": net.state_dict(), "adam": adam.state_dict()}}, {})
    got = load(tmp_path / "c")["agent"]
    assert same(got["adam"], adam.state_dict())
    other, other_adam = make()
    other.load_state_dict(got["net"])
    other_adam.load_state_dict(got["adam"])
    for i in range(3):
        step(net, adam, i)
        step(other, other_adam, i)
    assert same(dict(other.state_dict()), dict(net.state_dict()))


def test_large_arrays_are_mapped_and_small_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LARGE", 80)
    big, small, tensor = np.arange(10.0), np.arange(9.0), torch.arange(20.0)
    save(tmp_path / "c", {"r": {"big": big, "small": small, "tensor": tensor}}, {})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [MANIFEST, "r.0.big.npy", "r.1.tensor.npy", "r.npz"]
    got = load(tmp_path / "c")["r"]
    assert isinstance(got["big"], np.memmap)
    assert not got["big"].flags.writeable
    assert not isinstance(got["small"], np.memmap)
    got["tensor"].add_(1)  # a tensor is the reader's own
    assert same(load(tmp_path / "c")["r"], {"big": big, "small": small, "tensor": tensor})


@pytest.mark.parametrize(
    "bad",
    [
        object(),
        {1, 2},
        b"bytes",
        np.array([object()]),
        {(1, 2): 3},
        1j,
        np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]),
    ],
    ids=["object", "set", "bytes", "object array", "tuple key", "complex", "objects in a record"],
)
def test_what_cannot_be_kept_is_refused_when_it_is_saved(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(UserError, match=r"^part/x/0: .*a state"):
        save(tmp_path / "c", {"part": {"x": [bad]}}, {})
    assert list(tmp_path.iterdir()) == []


def test_about_and_the_manifest(tmp_path: Path) -> None:
    facts = {"steps": 5, "return": {"mean": 1.5}}
    save(tmp_path / "c", {"a": torch.ones(2)}, facts)
    assert about(tmp_path / "c") == facts
    manifest = json.loads((tmp_path / "c" / MANIFEST).read_text())
    data = (tmp_path / "c" / "a.npz").read_bytes()
    assert manifest["files"] == {"a.npz": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    assert manifest["versions"]["torch"] == torch.__version__


def test_only_reads_and_checks_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "c", {"agent": {"w": torch.ones(2)}, "replay": np.arange(5)}, {})
    (tmp_path / "c" / "replay.npz").unlink()
    assert same(load(tmp_path / "c", only=["agent", "nothing"]), {"agent": {"w": torch.ones(2)}})
    with pytest.raises(Damaged, match=r"incomplete: replay\.npz is missing"):
        load(tmp_path / "c")


def test_arrays_are_named_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy alone reads them."""
    monkeypatch.setattr(checkpoint, "LARGE", 400)
    torso = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1, bias=False))
    rows = [np.arange(100.0), np.arange(3)]
    save(tmp_path / "c", {"agent": {"online": torso.state_dict()}, "replay": {"storage": {"rows": rows}}}, {})
    with np.load(tmp_path / "c" / "agent.npz") as agent:
        assert agent.files == ["agent/online/0.weight", "agent/online/0.bias", "agent/online/1.weight"]
        np.testing.assert_array_equal(agent["agent/online/1.weight"], torso[1].weight.detach())
    with np.load(tmp_path / "c" / "replay.npz") as replay:
        assert replay.files == ["replay/storage/rows/1"]
    np.testing.assert_array_equal(np.load(tmp_path / "c" / "replay.0.storage.rows.0.npy"), rows[0])
    manifest = json.loads((tmp_path / "c" / MANIFEST).read_text())
    assert manifest["files"]["replay.0.storage.rows.0.npy"]["array"] == "replay/storage/rows/0"
    assert manifest["state"]["replay"]["storage"]["rows"][1] == {"$array": "replay/storage/rows/1"}


@pytest.mark.parametrize("large", [16 * 2**20, 0], ids=["small arrays", "every array in a file of its own"])
def test_names_that_are_alike_or_no_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    keys: list[Any] = [1, "1", "a/b", "a", "x", "x.npy", "X", "", "..", "/etc/x", "\\", "a\0b", "a\0c", "ü", "\ud800"]
    keys += ["long" * 100, "long" * 100 + "er", None, "$array", "../../up", "C:\\x", "con", "*?", "new\nline", True + 1]
    monkeypatch.setattr(checkpoint, "LARGE", large)
    state = {key: {"b": np.array([i])} if key == "a" else np.array([i]) for i, key in enumerate(keys)}
    save(tmp_path / "c", {"part": state}, {})
    assert same(load(tmp_path / "c")["part"], state)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def in_format_1(path: Path) -> None:
    """Turn a checkpoint into the first format: arrays numbered in the order of the tree, from 0 in each part."""
    manifest = json.loads((path / MANIFEST).read_text())
    for component, tree in manifest["state"].items():
        numbers: dict[str, int] = {}

        def number(node: Any, numbers: dict[str, int] = numbers) -> Any:
            if isinstance(node, list):
                return [number(v) for v in node]
            if isinstance(node, dict):
                for ref in {"$array", "$tensor"} & node.keys():
                    return {**node, ref: numbers.setdefault(node[ref], len(numbers))}
                return {k: number(v) for k, v in node.items()}
            return node

        manifest["state"][component] = number(tree)
        with np.load(path / f"{component}.npz") as small:
            arrays = {str(numbers[key]): small[key] for key in small.files}
        np.savez(path / f"{component}.npz", **arrays)  # type: ignore[arg-type]
        for name, entry in list(manifest["files"].items()):
            if name.startswith(f"{component}.") and "array" in entry:
                os.rename(path / name, path / f"{component}.{numbers[entry['array']]}.npy")
                manifest["files"][f"{component}.{numbers[entry['array']]}.npy"] = {}
                del manifest["files"][name]
    del manifest["sha256"]
    (path / MANIFEST).write_text(json.dumps({**manifest, "format": 1}))
    forged(path, lambda m: None)


@pytest.mark.parametrize("large", [16 * 2**20, 0], ids=["small arrays", "every array in a file of its own"])
def test_checkpoints_of_the_first_format_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(checkpoint, "LARGE", large)
    save(tmp_path / "c", {"part": LEAVES, "other": {"x": np.arange(3)}}, {"steps": 7})
    in_format_1(tmp_path / "c")
    names = {p.name for p in (tmp_path / "c").iterdir()}
    assert ("part.3.npy" in names) == (large == 0)
    assert same(load(tmp_path / "c"), {"part": LEAVES, "other": {"x": np.arange(3)}})
    assert about(tmp_path / "c") == {"steps": 7}


def test_a_checkpoint_that_the_first_format_wrote() -> None:
    """Weights, an optimizer's state, a random stream, one array in its own file."""
    path = Path(__file__).parent / "format_1"
    assert about(path) == {"steps": 3}
    got = load(path)
    assert same(got["agent"]["online"]["weight"], torch.arange(6.0).reshape(2, 3))
    assert same(got["agent"]["online"]["bias"], torch.tensor([0.5, -1.0], dtype=torch.bfloat16))
    assert same(got["agent"]["optimizer"]["state"], {0: {"exp_avg": torch.full((2, 3), 0.25), "step": 3}})
    assert same(got["replay"]["rows"], np.arange(40, dtype=np.uint8).reshape(10, 4))
    assert same(got["rng"], generator_state(np.random.default_rng(5)))


# Damage


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoint, "LARGE", 800)
    save(tmp_path / "c", {"agent": {"w": torch.ones(5)}, "replay": {"rows": np.arange(100.0), "n": 1}}, {"steps": 1})
    return tmp_path / "c"


@pytest.mark.parametrize("name", ["agent.npz", "replay.npz", "replay.0.rows.npy"])
@pytest.mark.parametrize("harm", ["cut", "grown", "flipped", "gone", "a directory"])
def test_every_file_is_checked(whole: Path, name: str, harm: str) -> None:
    load(whole)
    file, data = whole / name, (whole / name).read_bytes()
    file.unlink()
    if harm == "cut":
        file.write_bytes(data[:-1])
    elif harm == "grown":
        file.write_bytes(data + b"\0")
    elif harm == "flipped":
        file.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    elif harm == "a directory":
        file.mkdir()
    words = {"cut": "bytes", "grown": "bytes", "flipped": "SHA-256", "gone": "missing", "a directory": "missing"}
    with pytest.raises(Damaged, match=words[harm]):
        load(whole)


def forged(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest; then make sizes and hashes right again where the files are there."""
    manifest = json.loads((path / MANIFEST).read_text())
    manifest = change(manifest) or manifest
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
        for name, entry in manifest["files"].items():
            if isinstance(entry, dict) and (path / name).is_file():
                data = (path / name).read_bytes()
                entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    if isinstance(manifest, dict):
        manifest.pop("sha256", None)
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / MANIFEST).write_text(json.dumps(manifest))


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda m: [m],
    "another format": lambda m: {**m, "format": 4},
    "no format": lambda m: {k: v for k, v in m.items() if k != "format"},
    "no about": lambda m: {k: v for k, v in m.items() if k != "about"},
    "about a number": lambda m: {**m, "about": 3},
    "no files": lambda m: {k: v for k, v in m.items() if k != "files"},
    "files a list": lambda m: {**m, "files": list(m["files"])},
    "a file not listed": lambda m: {**m, "files": {"agent.npz": m["files"]["agent.npz"]}},
    "entries of another kind": lambda m: {**m, "files": dict.fromkeys(m["files"], 7)},
    "no state": lambda m: {k: v for k, v in m.items() if k != "state"},
    "state a list": lambda m: {**m, "state": [1, {}]},
    "state a string": lambda m: {**m, "state": "agent"},
    "an array that is not there": lambda m: {**m, "state": {"agent": {"$array": 99}}},
    "an index of another kind": lambda m: {**m, "state": {"agent": {"$array": [1]}}},
    "a tensor without dtype": lambda m: {**m, "state": {"agent": {"$tensor": 0}}},
    "items that are no pairs": lambda m: {**m, "state": {"agent": {"$items": [1]}}},
    "a name of another kind": lambda m: {**m, "state": {"agent": {"$array": {}}}},
    "a large array under another name": lambda m: {**m, "files": {**m["files"], "replay.0.rows.npy": {"array": "x"}}},
    "a large array without a name": lambda m: {**m, "files": {**m["files"], "replay.0.rows.npy": {"array": None}}},
    "keys that cannot be keys": lambda m: {**m, "state": {"agent": {"$items": [[[], 1]]}}},
    "a tuple of nothing": lambda m: {**m, "state": {"agent": {"$tuple": None}}},
    "a component nobody wrote": lambda m: {**m, "state": {**m["state"], "more": 1}},
    "an empty name": lambda m: {**m, "state": {"": 1}, "files": {**m["files"], ".npz": {}}},
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_broken_manifest_is_damage_and_nothing_else(whole: Path, name: str) -> None:
    forged(whole, MANIFESTS[name])
    with pytest.raises(Damaged, match=r"checkpoint .*c "):
        load(whole)


@pytest.mark.parametrize("text", ["", "{", "null", "3", "[" * 100_000, "\udcff", '{"format": 1}'], ids=range(7))
def test_a_manifest_that_is_none(whole: Path, text: str) -> None:
    (whole / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    for read in (load, about):
        with pytest.raises(Damaged, match=r"no readable manifest\.json"):
            read(whole)


def test_no_bit_of_a_manifest_can_change_unseen(whole: Path) -> None:
    file = whole / MANIFEST
    written = file.read_bytes()
    for bit in range(0, 8 * len(written), 11):
        changed = bytearray(written)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            about(whole)
        except Damaged:
            continue
        assert json.loads(changed) == json.loads(written)


def test_no_manifest_and_no_directory(whole: Path) -> None:
    (whole / MANIFEST).unlink()
    for path in (whole, whole / "nowhere"):
        with pytest.raises(Damaged, match=r"no readable manifest\.json"):
            load(path)


def test_deep_trees_are_damage(whole: Path) -> None:
    manifest = json.loads((whole / MANIFEST).read_text())
    manifest["state"] = {"agent": "DEEP"}
    deep = "[" * 995 + "]" * 995
    (whole / MANIFEST).write_text(json.dumps(manifest).replace('"DEEP"', deep))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        load(whole)


@pytest.mark.parametrize(
    "name", ["../outside", "../c/agent", "agent/../../outside", "/outside", "..", "agent*", "age[n]t"]
)
def test_names_cannot_lead_out_of_the_directory(whole: Path, name: str) -> None:
    """A component that points elsewhere is refused, even where the file exists, is listed and its hash is right."""
    name = name.replace("/outside", f"{whole.parent}/outside") if name.startswith("/") else name
    shutil.copy(whole / "agent.npz", whole.parent / "outside.npz")

    def point(m: dict[str, Any]) -> dict[str, Any]:
        entry = m["files"]["agent.npz"]
        return {**m, "state": {name: m["state"]["agent"]}, "files": {f"{name}.npz": entry, "outside.npz": entry}}

    forged(whole, point)
    with pytest.raises(Damaged, match="cannot be a component's name"):
        load(whole)


def test_files_that_the_manifest_does_not_list_are_not_read(whole: Path) -> None:
    np.save(whole / "agent.0.w.npy", np.zeros(5, dtype=np.float32))
    np.save(whole / "replay.99.npy", np.zeros(3))
    (whole / "replay.x.npy").write_bytes(b"junk")
    assert same(load(whole)["agent"], {"w": torch.ones(5)})
    assert load(whole)["replay"]["n"] == 1


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["npz", "npy", "bare pickle"])
def test_a_strangers_checkpoint_runs_no_code(whole: Path, kind: str) -> None:
    marker = whole.parent / "it ran"
    bomb = np.array([Bomb(marker)], dtype=object)
    file = whole / ("replay.0.rows.npy" if kind == "npy" else "agent.npz")
    with open(file, "wb") as f:
        if kind == "npz":
            np.savez(f, **{"agent/w": bomb})
        elif kind == "npy":
            np.save(f, bomb, allow_pickle=True)
        else:
            f.write(bomb.dumps())
    forged(whole, lambda m: None)
    with pytest.raises(Damaged, match="cannot be read"):
        load(whole)
    assert not marker.exists()
    np.asarray(np.load(file, allow_pickle=True)["agent/w"] if kind == "npz" else np.load(file, allow_pickle=True))
    assert marker.exists()  # it would have, with pickles


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"junk"])
@pytest.mark.parametrize("name", ["agent.npz", "replay.0.rows.npy"])
def test_files_that_are_no_arrays_are_damage(whole: Path, name: str, data: bytes) -> None:
    (whole / name).write_bytes(data)
    forged(whole, lambda m: None)
    with pytest.raises(Damaged, match="cannot be read"):
        load(whole)


def test_an_array_that_claims_to_be_huge_is_damage(whole: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000000,), }"
    header = header.ljust(117) + b"\n"
    (whole / "replay.0.rows.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    forged(whole, lambda m: None)
    with pytest.raises(Damaged, match="cannot be read"):
        load(whole)


# Crashes


CRASHES = ["_sha256", "_write_component", "_sync_directory", "_sync"]


@pytest.mark.parametrize("where", CRASHES)
@pytest.mark.parametrize("again", [False, True], ids=["a new name", "the same name again"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_crash_leaves_the_old_one_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, again: bool, error: type[BaseException]
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    old = checkpoints.save(1, {"a": torch.ones(3), "b": 1}, {})
    real, calls = getattr(checkpoint, where), []

    def crash(*args: Any) -> Any:
        calls.append(args)
        if where != "_sync_directory" and len(calls) < 2:  # the second component, or its file
            return real(*args)
        raise error("no space left")

    with monkeypatch.context() as m:
        m.setattr(checkpoint, where, crash)
        with pytest.raises(error):
            checkpoints.save(1 if again else 2, {"a": torch.zeros(3), "b": 2}, {})
    assert calls
    assert same(load(old), {"a": torch.ones(3), "b": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000000001"]
    assert [load(p)["b"] for p in checkpoints.newest()] == [1]


@pytest.mark.parametrize("again", [False, True])
def test_a_failed_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    save(tmp_path / "c", {"a": 1}, {})
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if source.name.endswith(".tmp"):
            raise OSError("no")
        real(source, target)

    with monkeypatch.context() as m:
        m.setattr(os, "rename", rename)
        with pytest.raises(OSError, match="no"):
            save(tmp_path / ("c" if again else "d"), {"a": 2}, {})
    assert load(tmp_path / "c") == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": 1}, {})
    with monkeypatch.context() as m:  # killed: nothing is cleaned up
        m.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        m.setattr(checkpoint, "_sync_directory", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoints.save(2, {"a": 2}, {})
    assert (tmp_path / ".step_000000002.tmp").is_dir()
    assert [p.name for p in checkpoints.newest()] == ["step_000000001"]
    checkpoints.save(3, {"a": 3}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000000001", "step_000000003"]


def test_a_save_that_was_killed_between_its_renames_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(1, {"a": "old"}, {})
    rename = os.rename
    with monkeypatch.context() as m:  # killed: nothing is put back or cleaned up
        m.setattr(os, "rename", lambda a, b: rename(a, b) if str(b).endswith(".old") else 1 / 0)
        m.setattr(Path, "exists", lambda path: "best" in path.name and not path.name.startswith("."))
        m.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(ZeroDivisionError):
            checkpoints.save_best(1, {"a": "new"}, {})
    assert checkpoints.best() is None
    checkpoints.finish_saving(checkpoints.save(2, {"a": 2}, {}))
    assert load(tmp_path / "best") == {"a": "old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "best_000000001", "latest", "step_000000002"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for value in (1, 2):
        path = checkpoints.save(7, {"a": np.full(3, value)}, {"v": value})
    assert load(path)["a"].tolist() == [2, 2, 2]
    assert about(path) == {"v": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step_000000007"]


# A run's checkpoints


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_keep_and_links(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (10, 20, 30, 40):
        path = checkpoints.save(step, {"a": step}, {})
        assert path == tmp_path / "checkpoints" / f"step_{step:09d}"
    checkpoints.save_best(20, {"a": "good"}, {})
    checkpoints.save_best(35, {"a": "better"}, {})
    wanted = ["best", "best_000000035", "latest", "step_000000030", "step_000000040"]
    assert names(checkpoints.directory) == wanted
    assert load(checkpoints.directory / "latest") == {"a": 40}
    assert load(checkpoints.directory / "best") == {"a": "better"}
    assert os.readlink(checkpoints.directory / "latest") == "step_000000040"  # relative: runs can be moved
    assert [load(p)["a"] for p in checkpoints.newest()] == [40, 30]


def test_a_resume_finishes_saves_that_were_killed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(10, {"a": 10}, {})
    checkpoints.save_best(10, {"a": 10}, {"return": {"mean": 1.0}})
    save(tmp_path / "step_000000020", {"a": 20}, {})  # killed before links were changed and old ones deleted
    save(tmp_path / "best_000000020", {"a": 20}, {"return": {"mean": 2.0}})
    save(tmp_path / "step_000000030", {"a": 30}, {})  # damaged
    (tmp_path / ".best.tmp").symlink_to("best_000000020")
    (tmp_path / ".step_000000040.tmp").mkdir()
    checkpoints.finish_saving(tmp_path / "step_000000020")
    assert names(tmp_path) == ["best", "best_000000020", "latest", "step_000000020", "step_000000030"]
    assert load(tmp_path / "latest") == load(tmp_path / "best") == {"a": 20}


def test_a_copy_of_a_run_that_followed_links_gets_links_again(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(10, {"a": 10}, {})
    (tmp_path / "latest").unlink()
    save(tmp_path / "latest", {"a": 10}, {})
    checkpoints.save(20, {"a": 20}, {})
    assert load(tmp_path / "latest") == {"a": 20}
    assert (tmp_path / "latest").is_symlink()


def test_a_snapshot_that_a_kill_took_away_is_put_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save_snapshot(30, {"a": 30}, {})
    path.rename(path.with_name(".30.old"))
    checkpoints.finish_saving(checkpoints.save(40, {"a": 40}, {}))
    assert load(checkpoints.find("30")) == {"a": 30}


def test_a_best_one_may_come_at_an_earlier_step(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (50, 20):  # resumed from before 50
        checkpoints.save_best(step, {"a": step}, {})
    assert names(tmp_path) == ["best", "best_000000020"]


def test_a_checkpoint_is_saved_though_an_old_one_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another process holds open on a network file system cannot."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"a": 1}, {})
    checkpoints.save_best(1, {"a": 1}, {})

    def busy(*args: Any, **kwargs: Any) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as m:
        m.setattr(os, "rmdir", busy)
        checkpoints.save(2, {"a": 2}, {})
        checkpoints.save_best(2, {"a": 2}, {})
    assert load(tmp_path / "latest") == load(tmp_path / "best") == {"a": 2}
    checkpoints.save(3, {"a": 3}, {})
    assert names(tmp_path) == ["best", "best_000000001", "best_000000002", "latest", "step_000000003"]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), None])
def test_of_two_best_ones_the_score_decides(tmp_path: Path, odd: Any) -> None:
    """A save that was killed before it deleted the other one leaves two; the later step need not be the better one."""
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.best() is None
    for step, score in ((20, 7.0), (50, 5.0), (60, odd), (70, {})):
        save(tmp_path / f"best_{step:09d}", {"agent": step}, {"return": {"mean": score}})
    save(tmp_path / "best_000000080", {"agent": 80}, {})
    (tmp_path / "best_000000090").mkdir()
    found = checkpoints.best()
    assert found == checkpoints.find("best")
    assert found == tmp_path / "best_000000020"


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_one_just_written_is_never_pruned(tmp_path: Path, keep: int) -> None:
    """A run that went on from an older one (the newer ones were damaged) writes at a step between them.

    The newer ones are deleted, or the last one by its step would be a damaged one.
    """
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (100, 200, 300):
        checkpoints.save(step, {"a": step}, {})
    path = Checkpoints(tmp_path, keep=keep).save(150, {"a": 150}, {})
    assert load(path) == {"a": 150}
    assert load(tmp_path / "latest") == {"a": 150}
    kept = [n for n in names(tmp_path) if n.startswith("step_")]
    assert kept == ["step_000000100", "step_000000150"][-keep:]
    assert Checkpoints(tmp_path).find("last") == path


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_is_at_least_one(tmp_path: Path, keep: int) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.keep: must be at least 1"):
        Checkpoints(tmp_path, keep=keep)


@pytest.mark.parametrize("keep", [4, 5, 9])
def test_keeping_more_than_there_are(tmp_path: Path, keep: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in range(4):
        checkpoints.save(step, {"a": step}, {})
    assert [load(p)["a"] for p in checkpoints.newest()] == [3, 2, 1, 0]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (999_999_999, 1_000_000_000):
        checkpoints.save(step, {"a": step}, {})
    assert [load(p)["a"] for p in checkpoints.newest()] == [1_000_000_000, 999_999_999]
    assert load(checkpoints.find("last")) == {"a": 1_000_000_000}


def test_find(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=r"^which: .* holds no checkpoint yet$"):
        checkpoints.find("last")
    checkpoints.save(10, {"a": 10}, {})
    assert load(checkpoints.find("best")) == {"a": 10}  # never evaluated: the last one
    checkpoints.save(20, {"a": 20}, {})
    checkpoints.save_best(15, {"a": "best"}, {})
    (tmp_path / "step_mine").mkdir()  # not ours
    found = {which: load(checkpoints.find(which))["a"] for which in ("best", "last", "10", "20", "15", "000000010")}
    assert found == {"best": "best", "last": 20, "10": 10, "20": 20, "15": "best", "000000010": 10}
    for which in ("11", "newest", "-1", "", "²"):
        with pytest.raises(UserError, match=rf"^which: no checkpoint '{which}' in .*: 10, 15, 20$"):
            checkpoints.find(which)


def test_without_symbolic_links_everything_is_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("links are not allowed here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": 1}, {})
    checkpoints.save_best(1, {"a": 2}, {})
    assert load(checkpoints.find("last")) == {"a": 1}
    assert load(checkpoints.find("best")) == {"a": 2}
    assert names(tmp_path) == ["best_000000001", "step_000000001"]
