"""One architecture a file. In: float [n, 3, 112, 112]; out: float32 [n, dimension], not unit length."""
