"""A photo becomes maps, labels and masks here, over arrays and without HTTP: `training` imports from this room of `app` alone."""
