"""Many trainings by one command: what is to be trained, and the processes that train it."""
