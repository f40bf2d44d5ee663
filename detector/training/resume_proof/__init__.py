"""Proving that a training which is killed and resumed ends like one that never was: the same bits everywhere.

processes: trainings in processes of their own, interrupted at random moments and resumed.
differences: what differs between two run directories.
proof: both on a few images of a configuration's data, for tools/verify_resume.py.
"""
