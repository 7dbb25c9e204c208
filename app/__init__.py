"""tag2mask service: class activation maps, pseudo-labels and masks for uploaded photos, on ONNX Runtime."""
