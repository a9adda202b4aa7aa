"""How good saved predictions are; needs no PyTorch."""
