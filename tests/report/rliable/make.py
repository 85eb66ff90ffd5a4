"""Write numbers.json: scores, and what rliable says of them. `tests/report/test_stats.py` compares.

rliable 1.2.0 does not import beside current pandas; an environment of its own has it:

    pip install rliable==1.2.0 'pandas<2' 'numpy<2' 'setuptools<81'
    python tests/report/rliable/make.py
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

RESAMPLES = 50_000
THRESHOLDS = np.linspace(0, 2, 9)

rng = np.random.default_rng(0)
# (runs, environments): 7 and 5 runs in four environments, of different means and spreads, with ties.
scores = {
    name: np.round(rng.gamma(shape, 0.25, size=(runs, 4)) + np.array([0, 0.2, 0.4, 0.1]), 2)
    for name, shape, runs in [("x", 3, 7), ("y", 2, 5)]
}


def aggregate(matrix):
    """Return mean, median and interquartile mean."""
    return np.array([metrics.aggregate_mean(matrix), metrics.aggregate_median(matrix), metrics.aggregate_iqm(matrix)])


points, intervals = library.get_interval_estimates(scores, aggregate, reps=RESAMPLES)
better, better_interval = library.get_interval_estimates(
    {"x,y": (scores["x"], scores["y"])}, metrics.probability_of_improvement, reps=RESAMPLES
)
profiles, bands = library.create_performance_profile(scores, THRESHOLDS, reps=RESAMPLES)
numbers = {
    "versions": {name: importlib.metadata.version(name) for name in ("rliable", "arch", "numpy", "scipy", "pandas")},
    "thresholds": THRESHOLDS.tolist(),
    "scores": {name: matrix.tolist() for name, matrix in scores.items()},
    "mean, median, iqm": {name: point.tolist() for name, point in points.items()},
    "their intervals": {name: interval.T.tolist() for name, interval in intervals.items()},
    "improvement": [float(better["x,y"]), *map(float, np.ravel(better_interval["x,y"]))],
    "profiles": {name: profile.tolist() for name, profile in profiles.items()},
    "their bands": {name: band.T.tolist() for name, band in bands.items()},
}
lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items())
(Path(__file__).parent / "numbers.json").write_text(f"{{\n{lines}\n}}\n")
