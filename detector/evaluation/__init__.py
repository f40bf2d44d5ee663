"""From detections to figures to files."""
