"""What is promised, and what was measured in this run beside it. Decides pass or fail, no more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """One promise: a figure that must be at most `limit`, in `unit`."""

    what: str
    value: float
    limit: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        return self.value <= self.limit

    def line(self) -> str:
        mark = "✔" if self.kept else "✖"
        value, limit = f"{self.value:.3g} {self.unit}", f"{self.limit:.3g} {self.unit}"
        return f"  {mark} {self.what:<68} {value.rstrip():>10}   at most {limit.rstrip()}"


def summary(measured: list[Measured]) -> tuple[str, int]:
    """Return the table of promises, and the exit code: 1 where one of them was not kept."""
    lines = [promise.line() for promise in measured]
    broken = [promise for promise in measured if not promise.kept]
    if broken:
        lines.append(f"{len(broken)} of {len(measured)} promises were not kept in this run.")
    else:
        lines.append(f"All {len(measured)} promises were kept in this run.")
    return "\n".join(lines), 1 if broken else 0
