"""What a training decides by itself: imbalance settings and the batch size."""
