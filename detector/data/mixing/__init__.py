"""Augmentations that make one training image from several."""
