"""The commands: `cccad-run SPEC.toml`, and `cccad` for looking around. Exit 0 done, 1 the run failed, 2 bad input."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from cccad_core.errors import CccadError

ONLY = ("collect", "pretrain", "train", "evaluate", "report")


def guarded(work: Callable[[], None]) -> None:
    """Do *work*; a user's mistake becomes one clear message and exit code 2, a failure of the run exit code 1."""
    try:
        work()
    except CccadError as error:
        _stop(str(error), 2)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _stop(f"{error.strerror or error}{where}; what was finished is kept, continue with --resume", 1)
    except KeyboardInterrupt:
        _stop("interrupted; what was finished is kept, continue with --resume", 130)
    except (ValueError, LookupError) as error:
        if not type(error).__module__.startswith("cccad_"):
            raise
        _stop(str(error), 1 if type(error).__name__ == "CollectionError" else 2)


def _stop(message: str, code: int) -> None:
    click.echo(message, err=True)
    sys.exit(code)


@click.command("run")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field with a TOML value.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Runs go here.")
@click.option("--resume", is_flag=True, help="Continue an unfinished run of this spec.")
@click.option("--dry-run", is_flag=True, help="Check the spec, print it resolved with what would be done, and stop.")
@click.option("--only", type=click.Choice(ONLY), help="Do this stage alone.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Training processes.")
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
def run(**given: Any) -> None:
    """Run the experiment in SPEC: collect, pretrain, train, evaluate, report."""
    from cccad_train.experiment_run import Order, execute  # noqa: PLC0415 - torch is imported only to run

    order = Order(**given)
    guarded(lambda: execute(order))


@click.group()
def main() -> None:
    """Compressed-context Algorithm Distillation: look around, evaluate, report."""


@main.command("list")
@click.argument("kind", required=False)
def list_parts(kind: str | None) -> None:
    """List registered parts, all or of one KIND (compressor, curriculum, env, source, executor, tokens)."""
    from cccad_core.registry import KINDS, entries  # noqa: PLC0415

    def show() -> None:
        for each in [kind] if kind else KINDS:
            click.echo(f"{each}:")
            for entry in entries(each):
                told = f"BROKEN: {entry.error}" if entry.error else f"{entry.distribution} {entry.version}"
                click.echo(f"  {entry.name:20s} {told}")

    guarded(show)


@main.command("describe")
@click.argument("kind")
@click.argument("name")
def describe_part(kind: str, name: str) -> None:
    """Say what part NAME of KIND does, and list its fields."""
    from cccad_core.registry import lookup  # noqa: PLC0415
    from cccad_core.specs import describe  # noqa: PLC0415

    guarded(lambda: click.echo(describe(lookup(kind, name))))


@main.command("data", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def data(arguments: tuple[str, ...]) -> None:
    """`collect SPEC` collects histories; all else (info, verify) is `cccad-data`."""
    from cccad_data.cli import main as data_main  # noqa: PLC0415

    if arguments[:1] == ("collect",):
        run(args=[*arguments[1:], "--only", "collect"], prog_name="cccad data collect")
    sys.exit(data_main(list(arguments)))


@main.command("evaluate")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override, such as evaluate.num_episodes=500.")
@click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)
def evaluate(run_folder: Path, overrides: tuple[str, ...], device: str) -> None:
    """Play the held-out tasks again with the policies of RUN_FOLDER, and rewrite its results and report."""
    from cccad_train.experiment_run import evaluate_again  # noqa: PLC0415

    guarded(lambda: evaluate_again(run_folder, overrides, device))


@main.command("report")
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
def report(run_folders: tuple[Path, ...]) -> None:
    """Write the report of one run, or a comparison of several."""
    from cccad_train.report import write_comparison, write_report  # noqa: PLC0415

    def show() -> None:
        page = write_report(run_folders[0]) if len(run_folders) == 1 else write_comparison(run_folders)
        click.echo(f"report: {page}")

    guarded(show)


main.add_command(run)

if __name__ == "__main__":
    run()
