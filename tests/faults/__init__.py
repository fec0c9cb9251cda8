"""Faults and attacks, row by row of the table in README.md beside this file."""
