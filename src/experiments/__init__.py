"""What can be trained, and what a run keeps on disk."""
