"""Scores: bits per byte, probes of the embedded world, benchmarks."""
