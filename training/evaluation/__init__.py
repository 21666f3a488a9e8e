"""Error rates on data that was never trained on, and the report that shows them."""
