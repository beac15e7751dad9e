"""The `kubectl moe` plugin: what runs, what rolls out, and a person's decisions about it."""
