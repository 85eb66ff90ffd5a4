"""The names of the files in a run's directory. Whoever writes or reads one imports its name from here."""

CONFIG = "config.yaml"
LOG = "train.log"
TABLE = "metrics.csv"
CURVES = "tensorboard"
NOTE = "job.json"
EPISODES = "episodes.csv"
EVALUATIONS = "evaluations.jsonl"
