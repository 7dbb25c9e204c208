"""Label maps, one label for each pixel: pseudo-labels, masks, their regions and how good they seem."""
