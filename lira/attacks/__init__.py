"""The attacks on arrays of scores. NumPy, SciPy, scikit-learn; no torch, no files. `run` is the place to start."""
