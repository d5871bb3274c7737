"""Measurements, no tests: `make bench` runs them, pytest does not collect them.

One module per measurement, each a program of its own (`python -m tests.bench.decide`). Each starts what it needs, on
free ports and in a folder that is removed afterwards. What a number means stands in docs/benchmarks.md.
"""
