"""Maps and labels are smoothed along the edges of the photo itself, by the dense CRF or by graph cuts."""
