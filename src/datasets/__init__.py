"""Labels and radiographs to batches; knows no network."""
