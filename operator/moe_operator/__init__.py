"""The operator: from objects to routing tables and pods, and back to status."""
