"""Small, generic helpers."""
