"""Maps and labels smoothed along the edges of the photo itself: the dense CRF, and graph cuts."""
