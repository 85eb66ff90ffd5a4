"""Environments: backends and the bookkeeping that all of them share."""
