"""Examines a dataset before training: is it sound, how imbalanced, reachable by anchors; and advises settings."""
