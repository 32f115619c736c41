"""What a run of many models needs around the SGD loop: kernels, schedule, workers, progress, queries, cost."""
