"""What train_runner does: a module for each --action."""
