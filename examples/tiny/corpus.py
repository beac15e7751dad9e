"""Gathers training text from the machine, and cuts the held-out text stored beside this file.

Everything comes from Python's standard library, /usr/share/common-licenses and Debian's packages
`bible-kjv` and `tzdata`; arithmetic is generated. Training text contains no held-out line longer
than 24 characters. Only training needs this module: the demo and the tests read `heldout/`, and
`familiar/`, which is a little of the training text, for tools that must know what it looks like.

    python -m examples.tiny.corpus --write-heldout --write-familiar
"""

from __future__ import annotations

import argparse
import dis
import io
import pydoc_data.topics
import random
import shutil
import subprocess
import sysconfig
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType

from examples.tiny.domains import DOMAINS, HERE, check_domain

HELDOUT_BYTES = 16 * 1024
FAMILIAR_PARTS, FAMILIAR_PART_BYTES = 8, 1024
HELDOUT_MODULES = ("calendar.py", "heapq.py", "shlex.py", "textwrap.py")
BYTECODE_MODULES = 60
HELDOUT_LICENSE = "Apache-2.0"
FAMILIAR_LICENSE = "CC0-1.0"
"""Whole, as licenses may be copied; its text is in the public domain."""
HELDOUT_BOOKS = ("ruth1:1-ruth4:22", "jonah1:1-jonah4:11")
TRAINING_BOOKS = "gen1:1-rev22:21"
LICENSES = Path("/usr/share/common-licenses")
TIMEZONES = Path("/usr/share/zoneinfo/tzdata.zi")

Split = tuple[list[str], list[str]]
"""(documents to train on, documents held out)."""


def _stdlib() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _modules() -> tuple[list[Path], list[Path]]:
    found = sorted(_stdlib().glob("*.py"))
    held = [path for path in found if path.name in HELDOUT_MODULES]
    return [path for path in found if path.name not in HELDOUT_MODULES], held


def _code() -> Split:
    train, held = _modules()
    share = HELDOUT_BYTES // len(HELDOUT_MODULES)
    return (
        [path.read_text(encoding="utf-8", errors="replace") for path in train],
        [path.read_text(encoding="utf-8")[share : 2 * share] for path in held],
    )


def _functions(code: CodeType) -> Iterable[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _functions(constant)


def _listing(path: Path) -> str:
    out = io.StringIO()
    source = path.read_text(encoding="utf-8", errors="replace")
    for function in _functions(compile(source, path.name, "exec")):
        out.write(f"\n{function.co_name}:\n")
        for step in dis.get_instructions(function):
            argument = "" if step.arg is None else f" {step.argrepr[:48] or step.arg}"
            out.write(f"{step.offset:4d} {step.opname.lower()}{argument}\n")
    # A code object is printed with its address, which differs in every run.
    return "".join(line for line in out.getvalue().splitlines(True) if " at 0x" not in line)


def _bytecode() -> Split:
    train, held = _modules()
    share = HELDOUT_BYTES // len(HELDOUT_MODULES)
    chosen = random.Random(3).sample(train, BYTECODE_MODULES)
    return [_listing(path) for path in chosen], [_listing(path)[:share] for path in held]


def _docs() -> Split:
    topics = pydoc_data.topics.topics
    names = sorted(topics)
    held = names[3::8]
    return [topics[n] for n in names if n not in held], [topics[n][:2048] for n in held]


def _legal() -> Split:
    texts = {p.name: p for p in sorted(LICENSES.glob("*")) if not p.is_symlink()}
    held = texts.pop(HELDOUT_LICENSE)
    return [p.read_text(encoding="utf-8") for p in texts.values()], [held.read_text()]


def _scripture() -> Split:
    program = shutil.which("bible")
    if program is None:
        raise SystemExit("no program `bible`: install Debian's bible-kjv, or put it on PATH")

    def read(verses: str) -> str:
        done = subprocess.run(
            [program, "-l72", verses], check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip("\n") + "\n"

    return [read(TRAINING_BOOKS)], [read(verses) for verses in HELDOUT_BOOKS]


def _timezones() -> Split:
    lines = TIMEZONES.read_text(encoding="utf-8").splitlines(keepends=True)
    blocks = ["".join(lines[start : start + 24]) for start in range(0, len(lines), 24)]
    held = blocks[3::7]
    return [block for i, block in enumerate(blocks) if i % 7 != 3], held


def _sum_line(rng: random.Random) -> str:
    a, b = (rng.randrange(10 ** rng.randint(1, 3)) for _ in range(2))
    d = rng.randint(2, 12)
    return rng.choice(
        (
            f"{a} + {b} = {a + b}",
            f"{a + b} - {a} = {b}",
            f"{d} * {b % 100} = {d * (b % 100)}",
            f"{d * (b % 100)} / {d} = {b % 100}",
            f"x + {a} = {a + b}, x = {b}",
            f"{a} mod {d} = {a % d}",
            f"{a} {'<' if a < b else '>='} {b}",
        )
    )


def _arithmetic() -> Split:
    def lines(seed: int, count: int) -> list[str]:
        rng = random.Random(seed)
        return [_sum_line(rng) for _ in range(count)]

    held = lines(2, 1200)
    known = set(held)
    train = [line for line in lines(1, 80_000) if line not in known]
    return ["\n".join(train)], ["\n".join(held)]


def _unicode() -> Split:
    train: list[str] = []
    held: list[str] = []
    for start in range(0x20, 0x1FB00, 32):
        rows = [(c, unicodedata.name(chr(c), "")) for c in range(start, start + 32)]
        named = [f"U+{c:04X} {n}\n" for c, n in rows if n and "IDEOGRAPH" not in n]
        named = [line for line in named if "HANGUL SYLLABLE" not in line]
        (held if (start // 32) % 20 == 7 else train).append("".join(named))
    return ["".join(train)], ["".join(random.Random(4).sample(held, len(held)))]


SOURCES: dict[str, Callable[[], Split]] = {
    "code": _code,
    "docs": _docs,
    "legal": _legal,
    "scripture": _scripture,
    "bytecode": _bytecode,
    "timezones": _timezones,
    "arithmetic": _arithmetic,
    "unicode": _unicode,
}


def training_text(domain: str, heldout: bytes) -> bytes:
    """Return the domain's training text, without any line of `heldout` over 24 characters.

    Raises ValueError for an unknown domain and SystemExit where its source is not installed.
    """
    known = {line.strip() for line in heldout.decode("utf-8", "replace").splitlines()}
    known = {line for line in known if len(line) > 24}
    documents, _ = SOURCES[check_domain(domain)]()
    lines = (line for document in documents for line in [*document.splitlines(), ""])
    return "\n".join(line for line in lines if line.strip() not in known).encode("utf-8")


def heldout_text(domain: str) -> bytes:
    """Return the text to hold out: whole characters, at most HELDOUT_BYTES of them in UTF-8."""
    _, documents = SOURCES[check_domain(domain)]()
    data = "\n".join(documents).encode("utf-8")[:HELDOUT_BYTES]
    return data.decode("utf-8", "ignore").encode("utf-8")


def familiar_text(domain: str, training: bytes) -> bytes:
    """Return some parts of a domain's training text, equally far apart, each begun by a line."""
    if domain == "legal":
        return (LICENSES / FAMILIAR_LICENSE).read_bytes()
    parts = []
    for number in range(FAMILIAR_PARTS):
        start = training.index(b"\n", number * len(training) // FAMILIAR_PARTS) + 1
        part = training[start : start + FAMILIAR_PART_BYTES]
        parts.append(part.decode("utf-8", "ignore").encode("utf-8"))
    return b"".join(parts)


def main() -> None:
    """Write `heldout/<domain>.txt` and `familiar/<domain>.txt`, or say how much text there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write-heldout", action="store_true", help="write heldout/DOMAIN.txt")
    parser.add_argument("--write-familiar", action="store_true", help="write familiar/DOMAIN.txt")
    arguments = parser.parse_args()
    for domain in DOMAINS:
        held = heldout_text(domain)
        training = training_text(domain, held)
        if arguments.write_heldout:
            _write("heldout", domain, held)
        if arguments.write_familiar:
            _write("familiar", domain, familiar_text(domain, training))
        print(f"{domain:11} train {len(training):>9,}  held out {len(held):,}")


def _write(folder: str, domain: str, text: bytes) -> None:
    path = HERE / folder / f"{domain}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text)


if __name__ == "__main__":
    main()
