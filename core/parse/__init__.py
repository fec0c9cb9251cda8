"""Documents to chunks, in child processes with limits: whatever a file does to its reader, only that file is lost.

`pool.py` runs in our process and owns the children; `child.py` is what they do, `confine.py` what they may not do,
and `wire.py` the JSON between them. What comes back is checked like any input: a child that has read a hostile file
is no friend. Nothing is imported here: a child would wait for what only its parent needs.
"""
