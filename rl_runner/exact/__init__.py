"""Finite MDPs with known dynamics, and exact measures of an agent on them."""
