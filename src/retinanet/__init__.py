"""The network, its loss and its decoding; nothing here knows data sets or paths of runs."""
