"""Asks Docker and image registries for images."""

from __future__ import annotations

from cluster.progress import Progress, StepFailed

_REGISTRY_ANSWERS_WITHIN_S = 15.0


def present(image: str, progress: Progress) -> bool:
    """Tell whether Docker has this image."""
    return progress.succeeds(["docker", "image", "inspect", image])


def pulled(image: str, progress: Progress) -> bool:
    """Pull an image if its registry answers soon; the pull itself may take as long as it needs."""
    name = image.partition("@")[0]
    with progress.step(f"asking for {name}"):
        probe = ["docker", "manifest", "inspect", name]
        if not progress.succeeds(probe, timeout_s=_REGISTRY_ANSWERS_WITHIN_S):
            return False
    try:
        with progress.step(f"pulling {name}"):
            progress.run(["docker", "pull", "--quiet", image])
    except StepFailed as failed:
        progress.say(f"pulling it failed: {failed}")
        return False
    return True
