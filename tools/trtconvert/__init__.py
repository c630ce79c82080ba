"""Converts pre-trained ONNX vision models into verified engine files."""
