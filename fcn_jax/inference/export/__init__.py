"""Files of a trained network for use without this package: StableHLO, ONNX, safetensors."""
