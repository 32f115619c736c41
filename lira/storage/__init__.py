"""What lies under model/<run>/ and result/<run>/: names, runs, model files, scores, provenance."""
