"""Label Studio's ML backend gives predictions for the photos of its tasks."""
