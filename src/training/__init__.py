"""One training: steps, epochs, and the state it resumes from."""
