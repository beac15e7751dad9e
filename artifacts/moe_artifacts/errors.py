"""What can be wrong with an artifact or on the way to it.

Two kinds, so that a caller never has to read a message: `Unavailable` may be well later and is
worth another try; `Refused` and all below it stay as they are until somebody changes something.
"""

from __future__ import annotations


class ArtifactError(Exception):
    """Base of them all; the message is one sentence for people."""


class Unavailable(ArtifactError):
    """The source does not answer, is overloaded, broke off, or time ran out: try again later."""


class Cancelled(ArtifactError):
    """The caller asked to stop; what was downloaded so far is kept for the next time."""


class Refused(ArtifactError):
    """Trying again gives the same answer: no such file, not allowed, too large, a bad address."""


class WrongDigest(Refused):
    """The bytes are not those of the digest that was asked for."""


class BadArtifact(Refused):
    """The right bytes or not, this is no artifact: header, metadata or tensors do not fit."""


class BadCheckpoint(Refused):
    """The checkpoint, or a file laid over it, cannot be split; the message names what and why."""
