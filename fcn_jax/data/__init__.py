"""From files to batches: data sources, checks, the builder, batches on the devices, augmentation."""
