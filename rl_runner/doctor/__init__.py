"""Checks of a configuration before training, and of a run during or after it. Each check is a small pure function."""
