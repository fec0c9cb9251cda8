"""Benchmarks that print ratios within one run; `make bench` runs them all, `python -m bench NAME…` some."""
