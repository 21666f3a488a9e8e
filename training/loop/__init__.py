"""What every training run needs around its steps, one noun a file, knowing nothing of faces.

Of the data: loader. Of the numbers: precision, accumulation, schedule, decay, averaging, imitation. Of many processes:
distributed. Of the run: checkpoint, stop, tracking, memory. Of what went wrong, or will: diagnosis, finder.
"""
