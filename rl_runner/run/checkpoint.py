"""One state tree <-> one directory, atomically, and never a pickle.

A state is a tree of dicts, lists and tuples over tensors, arrays, numbers, strings and None. On disk it is a
`manifest.json` (the tree, with the name of each array, every file's size and SHA-256, and a SHA-256 of all this), one
`.npz` per component and, so that gigabytes can be memory-mapped, one `.npy` per large array. An array is named by its
path in the tree, such as `agent/online/torso.0.weight`. Reading needs JSON and `numpy.load` without pickles: a
stranger's checkpoint cannot run code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl_runner.run.encoding import decode, encode
from rl_runner.run.files import MANIFEST, best_checkpoint, read_json
from rl_runner.types import Array, State, UserError
from rl_runner.version import __version__

FORMAT = 3
READABLE = (1, 2, FORMAT)  # format 1 numbered the arrays, format 2 names them, format 3 has a hash of the manifest
LARGE = 16 * 2**20  # bytes from which an array gets a file of its own
SNAPSHOTS = "snapshots"


class Damaged(UserError):
    """A checkpoint that is incomplete or was changed."""


def save(path: Path, state: State, about: State) -> None:
    """Write a state as the directory `path`: complete under that name, or not there at all.

    Args:
        path: a checkpoint that stands there already is replaced, once the new one is complete. If the process is
            killed between the two renames, the old one is left as `.NAME.old`; `Checkpoints` puts it back.
        state: one component per key.
        about: plain facts for the manifest (counters, versions, scores).
    """
    temporary, replaced = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tree: State = {}
        names: dict[str, str] = {}  # of the large arrays, by their files
        for name, part in state.items():
            tree[name], large = _write_component(temporary, name, part)
            names |= large
        files = {f.name: _entry(f, names.get(f.name)) for f in sorted(temporary.iterdir())}
        versions = {"rlrun": __version__, "torch": torch.__version__, "numpy": np.__version__}
        facts = {"format": FORMAT, "about": about, "versions": versions, "files": files, "state": tree}
        with open(temporary / MANIFEST, "w", encoding="utf-8") as f:
            json.dump({**facts, "sha256": _sha256_of(json.loads(json.dumps(facts)))}, f, indent=1)
            _sync(f)
        _sync_directory(temporary)
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
        _sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            os.rename(replaced, path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def about(path: Path) -> State:
    """Read the plain facts that `save` was given.

    Raises:
        Damaged: no readable manifest.
    """
    return dict(_manifest(path)["about"])


def load(path: Path, only: Iterable[str] | None = None) -> State:
    """Read a state back, checked against its manifest. Large arrays come memory-mapped, read-only.

    Args:
        path: the checkpoint's directory.
        only: components to read; the others are neither read nor checked.

    Raises:
        Damaged: a file is missing, cut short, changed, or not what the manifest says.
    """
    manifest = _manifest(path)
    try:
        state, files = manifest["state"], manifest["files"]
        names = state.keys() if only is None else state.keys() & set(only)
        return {name: _read_component(path, name, state[name], files) for name in names}
    except Damaged:
        raise
    except Exception as e:  # whatever a broken or a stranger's manifest leads to
        raise Damaged(f"checkpoint {path} cannot be read: {e}") from e


def check(path: Path) -> None:
    """Check the files of a checkpoint: sizes, and the agent's content. A replay memory of gigabytes is not read.

    Raises:
        Damaged: a file is missing or cut short, or one of the agent's is changed.
    """
    load(path, only=["agent"])
    for name, entry in _manifest(path)["files"].items():
        _check_size(path / name, entry)


def _manifest(path: Path) -> Any:
    try:
        manifest = read_json(path / MANIFEST)
        version, _, expected = manifest["format"], dict(manifest["about"]), manifest.pop("sha256", None)
        changed = (expected is not None or version == FORMAT) and _sha256_of(manifest) != expected
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise Damaged(f"checkpoint {path} has no readable {MANIFEST}: {e}") from e
    if version not in READABLE:
        raise Damaged(f"checkpoint {path} has format {version}; this version of rlrun reads 1 to {FORMAT}")
    if changed:
        raise Damaged(f"checkpoint {path} is damaged: {MANIFEST} does not have the expected SHA-256")
    return manifest


def _entry(file: Path, array: str | None) -> State:
    """Return what the manifest says of a file: size, hash and, of a large array, the name."""
    entry = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
    return entry if array is None else {**entry, "array": array}


def _check_size(file: Path, expected: Any) -> None:
    if not file.is_file():
        raise Damaged(f"checkpoint {file.parent} is incomplete: {file.name} is missing")
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise Damaged(
            f"checkpoint {file.parent} is damaged: {file.name} has {size} bytes, {expected['bytes']} expected"
        )


def _check(file: Path, expected: Any) -> None:
    _check_size(file, expected)
    if _sha256(file) != expected["sha256"]:
        raise Damaged(f"checkpoint {file.parent} is damaged: {file.name} does not have the expected SHA-256")


# A component: its arrays in files, and its tree with references to them.


def _write_component(directory: Path, name: str, part: Any) -> tuple[Any, dict[str, str]]:
    """Write the arrays of a component.

    Returns:
        its tree as JSON, and the names of the large arrays by the files that were made for them.
    """
    arrays: dict[str, Array] = {}
    tree = encode(part, name, arrays)
    small = {key: array for key, array in arrays.items() if array.nbytes < LARGE}
    with open(directory / f"{name}.npz", "wb") as f:
        np.savez(f, **small)  # type: ignore[arg-type]
        _sync(f)
    large = {}
    for i, key in enumerate(key for key in arrays if key not in small):
        words = re.sub(r"[^\w.-]", ".", key.removeprefix(f"{name}/"))
        file = f"{name}.{i}.{words}.npy"  # the number keeps it apart from others, on any file system
        with open(directory / file, "wb") as f:
            np.save(f, arrays[key], allow_pickle=False)
            _sync(f)
        large[file] = key
    return tree, large


def _read_component(directory: Path, name: str, tree: Any, files: dict[str, Any]) -> Any:
    """Read what the manifest lists, and nothing else that may lie in the directory or, by its name, outside of it."""
    if not re.fullmatch(r"\w+", name):
        raise Damaged(f"checkpoint {directory} is damaged: {name!r} cannot be a component's name")
    _check(directory / f"{name}.npz", files[f"{name}.npz"])
    with np.load(directory / f"{name}.npz", allow_pickle=False) as small:
        arrays = {key: small[f"{key}.npy"] for key in small.files}
    for file, entry in files.items():
        if large := re.fullmatch(rf"{name}\.(\d+)(\.[\w.-]*)?\.npy", file, re.ASCII):
            _check(directory / file, entry)
            array = np.load(directory / file, mmap_mode="r", allow_pickle=False)
            arrays[entry.get("array", large[1])] = array  # format 1 has the array's number in the file's name
    return decode(tree, arrays)


def _sha256_of(manifest: State) -> str:
    """Return the hash of a manifest, as JSON gives it back and without its own hash. Its layout does not matter."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sync(f: Any) -> None:
    f.flush()
    os.fsync(f.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """The checkpoints of one run.

    `step_000250000/` whole ones, `best_000200000/` the best agent, `latest` and `best` links to them, and
    `snapshots/30000/` weights alone.

    Args:
        directory: of the checkpoints.
        keep: whole checkpoints to keep.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, directory: Path, keep: int = 2) -> None:
        if keep < 1:
            raise UserError(f"checkpoint.keep: must be at least 1, got {keep}")
        self.directory, self.keep = directory, keep

    def save(self, step: int, state: State, about: State) -> Path:
        """Write a whole checkpoint, link it as `latest`, then delete those that are too old."""
        path = self._write(f"step_{step:09d}", "latest", state, about)
        for later in self._named("step_"):  # damaged: the run was resumed from an earlier one
            if _step(later) > step:
                _discard(later)
        self._prune(step)
        return path

    def save_best(self, step: int, state: State, about: State) -> Path:
        """Write the best agent so far, link it as `best`, then delete the one before."""
        path = self._write(f"best_{step:09d}", "best", state, about)
        self._keep_best(path)
        return path

    def save_snapshot(self, step: int, state: State, about: State) -> Path:
        """Write weights; none of them is ever deleted."""
        path = self.directory / SNAPSHOTS / str(step)
        save(path, state, about)
        return path

    def finish_saving(self, newest: Path) -> None:
        """Do what a kill may have kept a save from doing after its checkpoint was written: links, and deleting.

        Args:
            newest: the whole checkpoint from which the run is resumed.
        """
        self._discard_leftovers()
        _link(self.directory / "latest", newest.name)
        self._prune(_step(newest))
        if best := self.best():
            _link(self.directory / "best", best.name)
            self._keep_best(best)

    def newest(self) -> Iterator[Path]:
        """Return whole checkpoints, newest first."""
        return reversed(self._named("step_"))

    def best(self) -> Path | None:
        """Return the checkpoint of the best agent. A save that was killed may leave two: the higher score counts."""
        return best_checkpoint(self.directory)

    def find(self, which: str) -> Path:
        """Return the checkpoint called "best", "last" or by its step; of several at one step the whole one.

        Raises:
            UserError: there is none by that name.
        """
        whole = self._named("step_")
        if which == "best" and (found := self.best()):
            return found
        if which in ("best", "last") and whole:
            return whole[-1]
        by_step = {_step(path): path for prefix in (f"{SNAPSHOTS}/", "best_", "step_") for path in self._named(prefix)}
        if which.isdecimal() and int(which) in by_step:
            return by_step[int(which)]
        if not by_step:
            raise UserError(f"which: {self.directory.parent} holds no checkpoint yet")
        steps = ", ".join(map(str, sorted(by_step)))
        raise UserError(f"which: no checkpoint {which!r} in {self.directory}; best, last or one of the steps: {steps}")

    def _write(self, name: str, link: str, state: State, about: State) -> Path:
        path = self.directory / name
        save(path, state, about)
        self._discard_leftovers()
        _link(self.directory / link, name)
        return path

    def _prune(self, step: int) -> None:
        """Delete whole checkpoints up to a step, but the newest `keep` of them."""
        for old in [path for path in self._named("step_") if _step(path) <= step][: -self.keep]:
            _discard(old)

    def _keep_best(self, best: Path) -> None:
        for old in self._named("best_"):
            if old != best:
                _discard(old)

    def _discard_leftovers(self) -> None:
        """Delete what a save that was killed has left, or put it back where the save had taken the old one away."""
        for leftover in [*self.directory.glob(".*_*"), *self.directory.glob(f"{SNAPSHOTS}/.*")]:
            replaced = leftover.with_name(leftover.name[1:].removesuffix(".old"))
            if leftover.suffix == ".old" and not replaced.exists():
                with contextlib.suppress(OSError):
                    os.rename(leftover, replaced)
            _discard(leftover)

    def _named(self, prefix: str) -> list[Path]:
        found = [p for p in self.directory.glob(f"{prefix}*") if p.is_dir() and p.name.removeprefix(prefix).isdecimal()]
        return sorted(found, key=_step)


def _discard(path: Path) -> None:
    """Delete a directory, or what can be deleted of it: the new checkpoint is whole, whatever becomes of an old one."""
    shutil.rmtree(path, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


def _link(link: Path, target: str) -> None:
    """Point a symbolic link elsewhere, atomically. Where links are not allowed, do without: `find` does not need it."""
    temporary = link.with_name(f".{link.name}.tmp")
    if not link.is_symlink():
        _discard(link)  # a directory, of a copy of the run that followed links
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)
