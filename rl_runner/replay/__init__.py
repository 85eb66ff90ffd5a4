"""The replay memory: storage (rows), samplers (which rows), replay (rows as batches)."""
