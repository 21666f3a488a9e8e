"""What training hands over and the service accepts: the manifest, and the arithmetic that gives its files meaning.

    manifest  folder                       what a bundle is, and that it is whole
    preprocess  decode  align              picture → canvas → faces → aligned crops
    calibration                            cosine similarity ↔ false match rate
    sentinel                               a picture and its answer: swapped channels fail loudly

Only numpy, opencv and pydantic live here: train/serve skew hides in exactly this arithmetic, so it stands once.
"""
