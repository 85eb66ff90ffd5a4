"""Statistics, curves, tables and pictures over runs."""
