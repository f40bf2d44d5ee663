"""From files to batches: annotations, images, augmentation, sampling, loading."""
