"""A state tree as JSON, with its arrays taken out and named by their path in the tree.

A dict, list or tuple over tensors, arrays, numbers, strings and None becomes JSON in which {"$array": name} or
{"$tensor": name, "dtype": dtype} stands for an array. The array at key `weight` of the second entry of `layers` in the
component `agent` is called `agent/layers/1/weight`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from rl_runner.types import Array, UserError

LONGEST = 200  # characters of a name


def encode(node: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Return JSON for a tree; its arrays are added to `arrays`.

    Args:
        node: the tree, or a part of it. Dict keys that start with "$" are reserved and are stored another way.
        path: of the node in the state tree.
        arrays: by their names.

    Raises:
        UserError: a part of the user's own put something into the tree that a state cannot hold.
    """
    if isinstance(node, dict):
        if not all(k is None or isinstance(k, (bool, int, float, str)) for k in node):
            raise UserError(f"{path}: the keys of a state's dicts must be strings, numbers or None")
        items = {k: encode(v, f"{path}/{k}", arrays) for k, v in node.items()}
        plain = all(isinstance(k, str) and not k.startswith("$") for k in node)
        return items if plain else {"$items": [[k, v] for k, v in items.items()]}
    if isinstance(node, (list, tuple)):
        entries = [encode(v, f"{path}/{i}", arrays) for i, v in enumerate(node)]
        return entries if isinstance(node, list) else {"$tuple": entries}
    if isinstance(node, torch.Tensor):
        flat = node.detach().cpu().contiguous()
        dtype = str(flat.dtype).removeprefix("torch.")
        bits = flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat
        return {"$tensor": _add(bits.numpy(), path, arrays), "dtype": dtype}
    if isinstance(node, np.ndarray) and not node.dtype.hasobject:  # objects would be pickled
        return {"$array": _add(node, path, arrays)}
    if isinstance(node, np.generic):
        return node.item()
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    raise UserError(
        f"{path}: a state must hold dicts, lists, tensors, arrays, numbers, strings and None alone, "
        f"got a {type(node).__name__}"
    )


def decode(node: Any, arrays: dict[str, Array]) -> Any:
    """Return the tree of JSON that `encode` gave. Raises an exception of any kind if it is not such JSON."""
    if isinstance(node, list):
        return [decode(v, arrays) for v in node]
    if not isinstance(node, dict):
        return node
    if "$tuple" in node:
        return tuple(decode(v, arrays) for v in node["$tuple"])
    if "$items" in node:
        return {k: decode(v, arrays) for k, v in node["$items"]}
    if "$array" in node:
        return arrays[str(node["$array"])]  # format 1 has numbers
    if "$tensor" in node:
        tensor = torch.from_numpy(np.array(arrays[str(node["$tensor"])]))
        return tensor.view(torch.bfloat16) if node["dtype"] == "bfloat16" else tensor
    return {k: decode(v, arrays) for k, v in node.items()}


def _add(array: Array, path: str, arrays: dict[str, Array]) -> str:
    """Add an array under a name that a zip file can hold and no other array has; return the name."""
    plain = re.sub(r"[^\w./ -]", "_", path, flags=re.ASCII)[:LONGEST]
    name, number = plain, 1
    while name in arrays:  # keys 1 and "1", or "a/b" beside b in a
        number += 1
        name = f"{plain} {number}"
    arrays[name] = array
    return name
