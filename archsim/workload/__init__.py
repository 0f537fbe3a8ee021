"""What runs: model shapes, precision, a forward pass lowered to operators, and request traces."""
