"""Figures from saved files; each module is a command that writes pictures and opens no window."""
