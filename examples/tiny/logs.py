"""A kind of text that the example model never saw: lines of a web server's access log, generated.

The same seed gives the same lines, on any machine. Addresses are those kept for documentation
(RFC 5737). Only topology changes need this text: a gate is tuned, or an expert grown, for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

TRAINING_SEED, HELDOUT_SEED = 21, 22
TRAINING_BYTES, HELDOUT_BYTES = 96 * 1024, 16 * 1024

_NETS = ("192.0.2", "198.51.100", "203.0.113")
_METHODS = ("GET", "GET", "GET", "GET", "POST", "HEAD", "DELETE")
_FOLDERS = ("images", "static", "users", "orders", "search", "basket", "feed", "login")
_NAMES = ("index", "list", "banner", "photo", "style", "report", "latest", "profile")
_ENDINGS = (".html", ".css", ".js", ".png", ".json", "")
_STATUS = (200, 200, 200, 200, 304, 301, 404, 500)
_AGENTS = ("curl/8.5.0", "Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (Macintosh)", "probe/1.2")


def _lines(rng: random.Random) -> Iterator[str]:
    second = rng.randrange(86_400)
    while True:
        second = (second + rng.randrange(9)) % 86_400
        clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
        address = f"{rng.choice(_NETS)}.{rng.randrange(1, 255)}"
        path = f"/{rng.choice(_FOLDERS)}/{rng.choice(_NAMES)}{rng.choice(_ENDINGS)}"
        if rng.random() < 0.2:
            path += f"?page={rng.randrange(1, 40)}"
        request = f"{rng.choice(_METHODS)} {path} HTTP/1.1"
        answer = f"{rng.choice(_STATUS)} {rng.randrange(10 ** rng.randint(2, 5))}"
        agent = rng.choice(_AGENTS)
        yield f'{address} - - [14/Mar/2026:{clock} +0000] "{request}" {answer} "-" "{agent}"\n'


def text(seed: int, size: int) -> bytes:
    """Return `size` bytes of log, its last line cut."""
    written = bytearray()
    for line in _lines(random.Random(seed)):
        written += line.encode()
        if len(written) >= size:
            return bytes(written[:size])
    raise AssertionError("the log has no end")
