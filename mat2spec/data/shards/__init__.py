"""Shards: the units in which a job divides, processes and commits its input."""
