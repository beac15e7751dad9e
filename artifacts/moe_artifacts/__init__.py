"""Artifacts of experts and gates: cut from a checkpoint, verified, fetched, kept in a cache."""
