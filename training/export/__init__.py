"""A trained network becomes what is served, and the ONNX file that holds it."""
