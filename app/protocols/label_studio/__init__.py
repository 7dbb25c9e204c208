"""Label Studio's ML backend: predictions for the photos of its tasks."""
