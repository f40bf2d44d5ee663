"""Settings for a dataset, each with its reason."""
