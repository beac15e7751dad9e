"""The local cluster: kind, its node image, the project's images, and what is installed into it."""
