"""What a hop costs, beside its floors, one process and Ray Serve."""
