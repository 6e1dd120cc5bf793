"""``python -m tests.load --profile sustained|burst|users --factor 0.1``: a load to be watched.

A node of its own with default settings but for room for 100 users, DCMTK's storescp as its archive.
Ends with 1 when a promise is broken: an acknowledged exam that is lost, or 0.1 % of errors.
"""

from __future__ import annotations

import argparse
import sys

from tests.load.films import COLUMNS, ROWS
from tests.load.profiles import PROFILES, run_profile


def main() -> int:
    """Run the profiles that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--profile", choices=[*PROFILES, "all"], default="all")
    parser.add_argument("--factor", type=float, default=0.1, help="share of the full length")
    parser.add_argument("--speed", type=float, default=1.0, help="so many times as fast")
    parser.add_argument("--seed", type=int, default=1, help="of the times")
    parser.add_argument("--rows", type=int, default=ROWS, help="of each image")
    parser.add_argument(
        "--columns", type=int, default=COLUMNS, help="of each image, 16 bits a pixel"
    )
    parser.add_argument(
        "--extra",
        default="",
        help="more of the node's configuration, as TOML; it has [receive] already",
    )
    given = parser.parse_args()
    names = list(PROFILES) if given.profile == "all" else [given.profile]
    broken = []
    for name in names:
        outcome = run_profile(
            name,
            factor=given.factor,
            speed=given.speed,
            seed=given.seed,
            rows=given.rows,
            columns=given.columns,
            extra=given.extra,
        )
        broken += outcome.broken_promises()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
