"""Describe and embed on many machines: Ray actors work through shards of the plan, the stage's process commits."""
