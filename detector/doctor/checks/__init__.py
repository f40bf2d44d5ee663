"""What can be wrong with a dataset, one kind of trouble a file."""
