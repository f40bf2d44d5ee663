"""Figures, all read from one matching of detections and ground truth."""
