"""How images become a model's input: found from its graph, or by trying specs on images."""
