"""A trained network as it is served, and the ONNX file that holds it."""
