"""Which objects the anchors reach."""
