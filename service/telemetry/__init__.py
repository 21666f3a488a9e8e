"""What the service says about itself: metrics for machines, log lines for people.

metrics     every Prometheus metric, declared once
logging     JSON lines, scrubbed of pictures, vectors, keys and tracebacks
"""
