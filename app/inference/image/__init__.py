"""Picture files, arrays of pixels, network inputs, and the way back to bytes."""
