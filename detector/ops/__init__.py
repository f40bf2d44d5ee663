"""Pure functions on boxes: `boxes` for tensors, `box_arrays` for numpy arrays."""
