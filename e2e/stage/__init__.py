"""What scenarios on a real cluster are made of: the cluster, its nodes, the model, the load."""
