"""The command ``cccad-data``: say what a set of histories is, and whether it is sound."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cccad_data.audit import verify
from cccad_data.card import card
from cccad_data.dataset import Histories, read_manifest
from cccad_data.errors import DataError, UnknownFamilyError
from cccad_data.families import build_family
from cccad_data.store import read_header

MOST_FAULTS = 100
"Faults printed; all of them are counted."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when all is well, 1 when faults were found, 2 when path or arguments are of no use."""
    parser = argparse.ArgumentParser(prog="cccad-data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,verify}")
    for name, text in (
        ("info", "print a card: tasks, sizes, returns, where it comes from"),
        ("verify", "play every history again and name each fault with its place"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=Path, help="a dataset folder (with manifest.json) or one .h5 shard")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return _info(arguments.path) if arguments.command == "info" else _verify(arguments.path)
    except DataError as error:
        print(f"cccad-data: {error}", file=sys.stderr)
        return 2


def _info(path: Path) -> int:
    histories = Histories.open(path)
    family, _ = _family(histories.header)
    print(card(path, histories, family))
    return 0


def _verify(path: Path) -> int:
    header = read_manifest(path) if path.is_dir() else read_header(path)
    family, reason = _family(header)
    if family is None:
        print(f"rewards and dynamics are not checked: {reason}")
    faults = verify(path, family)
    for fault in faults[:MOST_FAULTS]:
        print(fault)
    if len(faults) > MOST_FAULTS:
        print(f"... and {len(faults) - MOST_FAULTS:,} more")
    print(f"{path}: {len(faults)} faults" if faults else f"{path}: no faults")
    return 1 if faults else 0


def _family(header: dict[str, Any]) -> tuple[Any, str]:
    try:
        return build_family(header["env"]), ""
    except UnknownFamilyError as error:
        return None, str(error)


if __name__ == "__main__":
    sys.exit(main())
