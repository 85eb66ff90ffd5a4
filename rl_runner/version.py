"""The version of rlrun."""

__version__ = "0.1.0"
