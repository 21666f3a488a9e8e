"""The backends. Each imports its runtime itself; nothing is imported here."""
