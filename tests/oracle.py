"""The maths of value representations as the papers write it: slow loops over Python floats."""

import math

import numpy as np


def softmax(logits):
    """(..., M) -> (..., M)."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def project(probability, reward, discount, low, high):
    """Algorithm 1 of Bellemare et al. 2017, for one sample: (M,) -> (M,)."""
    atoms = len(probability)
    spacing = (high - low) / (atoms - 1)
    projected = np.zeros(atoms)
    for j in range(atoms):
        moved = min(max(reward + discount * (low + j * spacing), low), high)
        position = min(max((moved - low) / spacing, 0.0), atoms - 1.0)
        below, above = math.floor(position), math.ceil(position)
        if below == above:  # on an atom: the algorithm as printed would lose this mass
            projected[below] += probability[j]
        else:
            projected[below] += probability[j] * (above - position)
            projected[above] += probability[j] * (position - below)
    return projected


def cross_entropy(target, logits):
    """One sample: (M,), (M,) -> number."""
    return -sum(t * math.log(p) for t, p in zip(target, softmax(logits), strict=True) if t > 0)


def divergence(target, logits):
    """One sample: KL(target || softmax(logits))."""
    return sum(t * math.log(t / p) for t, p in zip(target, softmax(logits), strict=True) if t > 0)


def quantile_huber(quantiles, level, targets, kappa):
    """Equations 2 and 3 of Dabney et al. 2018b, for one sample: (K,), (K,), (L,) -> number."""
    total = 0.0
    for q, tau in zip(quantiles, level, strict=True):
        for t in targets:
            error = t - q
            tilt = abs(tau - (1.0 if error < 0 else 0.0))
            if kappa == 0:
                total += tilt * abs(error) / len(targets)
            elif abs(error) <= kappa:
                total += tilt * 0.5 * error**2 / kappa / len(targets)
            else:
                total += tilt * kappa * (abs(error) - 0.5 * kappa) / kappa / len(targets)
    return total
