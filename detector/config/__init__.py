"""Settings: their schema, how files are read, and what is said about them."""
