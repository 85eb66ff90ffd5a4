"""Configurations to objects: the only rooms beside `cli` and `launch` that know configurations."""
