"""Changes the topology of a mixture: experts pruned, merged, grown and tuned, with their gate."""
