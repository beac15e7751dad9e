"""What `kubectl krew` installs: an archive of `kubectl moe`, and the manifest that names it."""
