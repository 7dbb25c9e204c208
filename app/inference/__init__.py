"""What a photo becomes, over arrays and without HTTP: the only room of `app` that `training` imports from too."""
