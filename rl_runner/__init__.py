"""rlrun: a command-line experiment runner for deep Q-learning and its relatives."""

__version__ = "0.1.0"
