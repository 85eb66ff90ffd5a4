"""Configurations to objects. Only this package, `cli` and `launch` know configurations."""
