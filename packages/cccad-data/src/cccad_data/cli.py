"""The command `cccad-data`: say what a set of histories is, whether it is sound, and turn it into other forms."""

import json
import sys
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cccad_data.audit.card import card, draw
from cccad_data.audit.verify import unchecked, verify
from cccad_data.commands import guarded, versioned
from cccad_data.errors import DataError, StorageError, UnknownFamilyError
from cccad_data.families.registered import build_family, import_files, text_fields
from cccad_data.family import TaskFamily
from cccad_data.histories.dataset import Histories, read_manifest
from cccad_data.histories.merging import merge
from cccad_data.histories.shards import COMPRESSIONS, read_header, whole_file
from cccad_data.interchange import READERS, WRITERS, Wishes, export_histories, import_histories
from cccad_data.plain import Table
from cccad_data.process import Stopped

MOST_FAULTS = 100
"Faults printed; all of them are counted."
DATASET = "PATH is a dataset folder (with manifest.json) or one .h5 shard."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 when all is well, 1 when faults were found or the disk is full, 2 for bad input."""
    try:
        code = guarded(lambda: commands.main(argv, "cccad-data", standalone_mode=False), _verdict)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as stop:
        code = stop.code
    return int(code or 0)


def _verdict(error: Exception | Stopped) -> tuple[str, int]:
    if isinstance(error, Stopped):
        return f"cccad-data: {error}; nothing half-written is left", error.code
    if isinstance(error, DataError | UnknownFamilyError):
        return f"cccad-data: {error}", 1 if isinstance(error, StorageError) else 2
    return "", 2


class _ManyWords(click.Command):
    """A command some options of which take all words up to the next option: `--env darkroom size=9 horizon=20`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat such an option before each of its words, as click has it."""
        greedy = {name for each in self.params if "..." in str(getattr(each, "metavar", "")) for name in each.opts}
        words: list[str] = []
        option = ""
        for place, word in enumerate(args):
            if word.startswith("-"):
                option = word if word in greedy else ""
                if option and (place + 1 == len(args) or args[place + 1].startswith("-")):
                    raise click.BadOptionUsage(option, f"Option '{option}' requires an argument.", ctx)
            words += [option, word] if option and word != option else [word] * (not option)
        return super().parse_args(ctx, words)


_IMPORTS = "A Python file that registers the task family; it is run. May be given several times."
_PACKING = "'none' is read fastest from the disk; gzip without it."
_imports = click.option("--imports", type=Path, multiple=True, metavar="FILE", help=_IMPORTS)
_compression = click.option("--compression", type=click.Choice(COMPRESSIONS), default="gzip", help=_PACKING)


commands = click.Group("cccad-data", help=__doc__, no_args_is_help=False)
versioned("cccad-data", "numpy", "h5py", "torch")(commands)


@commands.command("info", epilog=DATASET)
@click.argument("path", type=Path)
@_imports
@click.option("--markdown", type=Path, metavar="FILE", help="Write the card as Markdown as well.")
@click.option("--plot", type=Path, metavar="FILE", help="Draw the learning curves (needs matplotlib).")
def info(path: Path, imports: Sequence[Path], markdown: Path | None, plot: Path | None) -> None:
    """Print a card: tasks, sizes, returns, where it comes from."""
    histories = Histories.open(path)
    family, _ = _family(histories.header, imports)
    text = card(path, histories, family)
    print(text)
    if markdown:
        with whole_file(markdown) as handle:
            handle.write(f"# {path.resolve().name}\n\n```\n{text}\n```\n".encode())
    if plot:
        draw(plot, histories, family)


@commands.command("verify", epilog=DATASET)
@click.argument("path", type=Path)
@_imports
def verify_all(path: Path, imports: Sequence[Path]) -> int:
    """Play every history again and name each fault with its place."""
    header = read_manifest(path) if path.is_dir() else read_header(path)
    family, reason = _family(header, imports)
    gaps = [f"rewards and dynamics are not checked: {reason}"] if family is None else unchecked(family)
    print(*gaps, sep="\n", end="\n" if gaps else "")
    faults = verify(path, family)
    for fault in faults[:MOST_FAULTS]:
        print(fault)
    if len(faults) > MOST_FAULTS:
        print(f"... and {len(faults) - MOST_FAULTS:,} more")
    print(f"{path}: {len(faults) or 'no'} faults{' in what was checked' if gaps else ''}")
    return 1 if faults else 0


@commands.command("merge", epilog=DATASET.replace("PATH", "Each of PATHS"))
@click.argument("out", type=Path)
@click.argument("paths", type=Path, nargs=-1, required=True)
@_compression
def merge_all(out: Path, paths: Sequence[Path], compression: str) -> None:
    """Make one dataset, the new folder OUT, of several of the same family and split."""
    merge(out, paths, compression=compression)
    _print_summary(out)


@commands.command("import", cls=_ManyWords)
@click.argument("sources", type=Path, nargs=-1, required=True, metavar="FILE...")
@click.argument("out", type=Path)
@click.option("--from", "form", type=click.Choice(list(READERS)), required=True, help="The format of the files.")
@click.option("--env", multiple=True, metavar="KIND FIELD=VALUE...", help="The task family, where FILE does not say.")
@click.option("--task", "tasks", multiple=True, metavar="ID", help="The task of all files, or given once for each.")
@click.option("--task-column", metavar="NAME", help="The array that says the task of each row: for {} in ID.")
@click.option("--history", metavar="NAME", help="The array that tells the histories of a task apart, row by row.")
@_imports
@click.option("--split", multiple=True, metavar="FIELD=VALUE...", help="seed=0 held_out_frac=0.1 without it.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE...", help="Settings of the format's reader.")
@_compression
def import_all(
    sources: Sequence[Path],
    out: Path,
    form: str,
    env: Sequence[str],
    imports: Sequence[Path],
    split: Sequence[str],
    compression: str,
    **settings: Any,
) -> None:
    """Turn files of another format into the dataset folder OUT; several files are several histories."""
    import_files(imports)
    kind, *fields = env or [""]
    if split and not kind and form != "legacy":
        raise DataError("'--split' says which tasks of a family are held out, so that it needs '--env'")
    wishes = Wishes(
        env={**_table(fields, text_fields(kind)), "kind": kind} if kind else None,
        settings=_settings(**settings),
        **({"split": _table(split)} if split else {}),
    )
    notes = import_histories(sources, out, form=form, wishes=wishes, compression=compression)
    print(*notes, sep="\n", end="\n" if notes else "")
    _print_summary(out)


@commands.command("export", epilog=DATASET)
@click.argument("path", type=Path)
@click.argument("out", type=Path)
@click.option("--to", "form", type=click.Choice(list(WRITERS)), required=True, help="The format.")
def export(path: Path, out: Path, form: str) -> None:
    """Turn a dataset into another format: OUT is a new file, or folder."""
    export_histories(path, out, form=form)
    print(out)


def _settings(
    settings: Sequence[str], tasks: Sequence[str], task_column: str | None, history: str | None
) -> dict[str, str]:
    """Return the reader's settings, those with an option of their own among them."""
    table = {"task_id": tasks[0] if len(tasks) == 1 else "", "task_ids": json.dumps(tasks) if len(tasks) > 1 else ""}
    table |= {"task_column": task_column or "", "history_column": history or ""}
    named = [f"{name}={value}" for name, value in table.items() if value]
    return _pairs([*settings, *named])


def _print_summary(out: Path) -> None:
    all_of_it = Histories.open(out, lazy=True)
    counts = f"{all_of_it.num_histories:,} histories, {all_of_it.num_env_steps:,} env steps"
    print(f"{out}: {len(all_of_it):,} tasks, {counts}")


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


def _family(header: Table, imports: Sequence[Path]) -> tuple[TaskFamily | None, str]:
    import_files(imports)
    try:
        return build_family(header["env"]), ""
    except UnknownFamilyError as error:
        return None, f"{error}; --imports FILE brings in one that a file registers"


if __name__ == "__main__":
    sys.exit(main())
