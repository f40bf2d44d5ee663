"""Files that may come from anywhere: reading them runs no code of theirs, is quick, and takes little memory."""
