"""Files, processes, command lines, errors a user can mend; knows nothing of X-rays."""
