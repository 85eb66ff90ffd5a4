"""The names of the files in a run's directory. Whoever writes or reads one imports its name from here."""

CONFIG = "config.yaml"
LOG = "train.log"
TABLE = "metrics.csv"
CURVES = "tensorboard"
CHECKPOINTS = "checkpoints"
NOTE = "job.json"
EPISODES = "episodes.csv"
CHANGES = "changes.csv"
EVALUATIONS = "evaluations.jsonl"
PROVENANCE = "provenance.json"
LOCK = ".lock"
BIN = ".bin"  # a directory of runs that were removed; whoever looks for runs passes it over
