"""From weights to the graphs that the service runs."""
