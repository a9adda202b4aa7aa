"""Network, loss, decoding, ensembles; knows no files of data or runs."""
