"""What several of the programs share: the table, link frames, the expert kernel."""
