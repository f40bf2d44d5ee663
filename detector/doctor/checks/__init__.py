"""What can be wrong with image files and between splits, one kind of trouble a file; with annotations: data/checks/."""
