"""The detector: backbone, neck, head, anchors, postprocessing, and how it is built."""
