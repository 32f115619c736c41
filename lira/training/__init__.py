"""The SGD loop and what a run of many models needs around it: kernels, schedule, workers, progress, queries, cost."""
