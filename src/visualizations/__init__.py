"""Pictures and the report, from saved files."""
