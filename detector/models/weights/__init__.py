"""Weights from elsewhere: their layouts, and what of them a model takes over."""
