"""The replay memory: storage of rows, samplers that choose rows, and replay, which reads rows as batches."""
