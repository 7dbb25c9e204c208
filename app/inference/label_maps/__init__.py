"""Label maps have one label for each pixel; here are pseudo-labels, masks, their regions, and how good they seem."""
