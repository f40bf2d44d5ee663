"""Using a detector: load it, detect with it, evaluate it."""
