"""From a configuration to checkpoints and figures: fit() in trainer.py."""
