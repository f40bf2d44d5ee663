"""What can be wrong with an annotation file, told from the file alone: for training, evaluation and the doctor."""
