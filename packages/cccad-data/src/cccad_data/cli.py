"""The command `cccad-data`: say what a set of histories is, whether it is sound, and turn it into other forms."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cccad_data.audit.card import card, draw
from cccad_data.audit.verify import unchecked, verify
from cccad_data.errors import DataError, StorageError, UnknownFamilyError
from cccad_data.families.registered import build_family, import_files, text_fields
from cccad_data.family import TaskFamily
from cccad_data.histories.dataset import Histories, read_manifest
from cccad_data.histories.merging import merge
from cccad_data.histories.shards import COMPRESSIONS, read_header, whole_file
from cccad_data.interchange import READERS, WRITERS, Wishes, export_histories, import_histories
from cccad_data.plain import Table
from cccad_data.process import Stopped, print_anything, stoppable

MOST_FAULTS = 100
"Faults printed; all of them are counted."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when all is well, 1 when faults were found or the disk is full, 2 for bad input."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    work: Callable[[argparse.Namespace], int] = arguments.work
    print_anything()
    try:
        with stoppable():
            code = work(arguments)
            sys.stdout.flush()
    except Stopped as stop:
        print(f"cccad-data: {stop}; nothing half-written is left", file=sys.stderr)
        return stop.code
    except BrokenPipeError:  # who read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        return 1
    except (DataError, UnknownFamilyError) as error:
        print(f"cccad-data: {error}", file=sys.stderr)
        return 1 if isinstance(error, StorageError) else 2
    return code


class _Version(argparse.Action):
    """Looks for the version when it is asked for: that takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        others = []
        for name in ("numpy", "h5py", "torch"):
            with suppress(PackageNotFoundError):  # torch is only needed by some sources
                others.append(f"{name} {version(name)}")
        print(f"cccad-data {version('cccad-data')} ({', '.join(others)})")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cccad-data", description=__doc__)
    parser.add_argument("--version", action=_Version, nargs=0, help="print versions, and end")
    commands = parser.add_subparsers(required=True, metavar="{info,verify,merge,import,export}")

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.set_defaults(work=work)
        return subparser

    def packed(subparser: argparse.ArgumentParser) -> None:
        text = "'none' is read fastest from the disk; gzip without it"
        subparser.add_argument("--compression", choices=COMPRESSIONS, default="gzip", help=text)

    def imported(subparser: argparse.ArgumentParser) -> None:
        text = "a Python file that registers the task family; it is run. May be given several times"
        subparser.add_argument("--imports", type=Path, metavar="FILE", action="append", default=[], help=text)

    dataset = "a dataset folder (with manifest.json) or one .h5 shard"
    info = command("info", _info, "print a card: tasks, sizes, returns, where it comes from")
    info.add_argument("path", type=Path, help=dataset)
    imported(info)
    info.add_argument("--markdown", type=Path, metavar="FILE", help="write the card as Markdown as well")
    info.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning curves (needs matplotlib)")
    check = command("verify", _verify, "play every history again and name each fault with its place")
    check.add_argument("path", type=Path, help=dataset)
    imported(check)
    merging = command("merge", _merge, "make one dataset of several of the same family and split")
    merging.add_argument("out", type=Path, help="a new folder")
    merging.add_argument("paths", type=Path, nargs="+", help=dataset)
    packed(merging)
    reading = command("import", _import, "turn a file of another format into a dataset folder")
    reading.add_argument("source", type=Path, nargs="+", help="what to import; several files are several histories")
    reading.add_argument("out", type=Path, help="a new folder")
    reading.add_argument("--from", dest="form", choices=READERS, required=True, help="its format")
    reading.add_argument(
        "--env", nargs="+", metavar=("KIND", "FIELD=VALUE"), help="the task family, where the file does not say"
    )
    imported(reading)
    reading.add_argument("--split", nargs="+", metavar="FIELD=VALUE", help="seed=0 held_out_frac=0.1 without it")
    reading.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="settings of the format's reader")
    packed(reading)
    writing = command("export", _export, "turn a dataset into another format")
    writing.add_argument("path", type=Path, help=dataset)
    writing.add_argument("out", type=Path, help="a new file, or folder")
    writing.add_argument("--to", dest="form", choices=WRITERS, required=True, help="the format")
    return parser


def _info(arguments: argparse.Namespace) -> int:
    histories = Histories.open(arguments.path)
    family, _ = _family(histories.header, arguments)
    text = card(arguments.path, histories, family)
    print(text)
    if arguments.markdown:
        with whole_file(arguments.markdown) as handle:
            handle.write(f"# {arguments.path.resolve().name}\n\n```\n{text}\n```\n".encode())
    if arguments.plot:
        draw(arguments.plot, histories, family)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    path = arguments.path
    header = read_manifest(path) if path.is_dir() else read_header(path)
    family, reason = _family(header, arguments)
    gaps = [f"rewards and dynamics are not checked: {reason}"] if family is None else unchecked(family)
    print(*gaps, sep="\n", end="\n" if gaps else "")
    faults = verify(path, family)
    for fault in faults[:MOST_FAULTS]:
        print(fault)
    if len(faults) > MOST_FAULTS:
        print(f"... and {len(faults) - MOST_FAULTS:,} more")
    print(f"{path}: {len(faults) or 'no'} faults{' in what was checked' if gaps else ''}")
    return 1 if faults else 0


def _merge(arguments: argparse.Namespace) -> int:
    merge(arguments.out, arguments.paths, compression=arguments.compression)
    return _print_summary(arguments.out)


def _import(arguments: argparse.Namespace) -> int:
    import_files(arguments.imports)
    kind, *fields = arguments.env or [None]
    if arguments.split and not kind and arguments.form != "legacy":
        raise DataError("'--split' says which tasks of a family are held out, so that it needs '--env'")
    wishes = Wishes(
        env={**_table(fields, text_fields(kind)), "kind": kind} if kind else None,
        settings=_pairs(arguments.set),
        **({"split": _table(arguments.split)} if arguments.split else {}),
    )
    notes = import_histories(
        arguments.source, arguments.out, form=arguments.form, wishes=wishes, compression=arguments.compression
    )
    print(*notes, sep="\n", end="\n" if notes else "")
    return _print_summary(arguments.out)


def _export(arguments: argparse.Namespace) -> int:
    export_histories(arguments.path, arguments.out, form=arguments.form)
    print(arguments.out)
    return 0


def _print_summary(out: Path) -> int:
    histories = Histories.open(out, lazy=True)
    print(
        f"{out}: {len(histories):,} tasks, {histories.num_histories:,} histories, {histories.num_env_steps:,} env steps"
    )
    return 0


def _pairs(fields: Sequence[str]) -> dict[str, str]:
    """Return FIELD=VALUE pairs as a dictionary of texts."""
    table: dict[str, str] = {}
    for pair in fields:
        name, equals, text = pair.partition("=")
        if not equals:
            raise DataError(f"{pair!r} must be FIELD=VALUE")
        if name in table:
            raise DataError(f"{name!r} is given twice")
        table[name] = text
    return table


def _table(fields: Sequence[str], texts: Container[str] = ()) -> Table:
    """Return FIELD=VALUE pairs as a dictionary; a value that is no JSON, or whose name is in *texts*, is a text."""
    table: Table = dict(_pairs(fields))
    for name, text in table.items():
        if name not in texts:
            with suppress(ValueError):
                table[name] = json.loads(text)
    return table


def _family(header: Table, arguments: argparse.Namespace) -> tuple[TaskFamily | None, str]:
    import_files(arguments.imports)
    try:
        return build_family(header["env"]), ""
    except UnknownFamilyError as error:
        return None, f"{error}; --imports FILE brings in one that a file registers"


if __name__ == "__main__":
    sys.exit(main())
