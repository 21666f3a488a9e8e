"""Benchmarks, one question a file: `python -m benchmarks.<file>`; answers lie in benchmarks/results.

Rule: contenders run interleaved in one process tree and one run, and what is claimed is their ratio; milliseconds are
this machine's and this hour's.
"""
