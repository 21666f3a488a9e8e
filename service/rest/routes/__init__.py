"""The routes, one noun a file; each class takes the parts that it calls and adds its routes to a router."""
