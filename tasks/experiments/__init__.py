"""Experiments: grids of backbones, ablations and seeds on pipelines' data, by the stages' own code."""
