"""Hostile files into documents.

Whoever sends a file may have made it to break its reader. So the node itself reads none: a worker
process does (worker.py), one that has little memory, little time and no network (sandbox.py), and what
it says is checked as if the file's maker had written it (intake.py). pool.py keeps the workers. One
module per format; what all must agree on is in formats.py, complaints.py and limits.py.
"""
