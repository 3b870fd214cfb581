"""The commands: `cccad-run SPEC.toml`, and `cccad` for looking around. Exit 0 done, 1 the run failed, 2 bad input."""

import inspect
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from cccad_core.blame import own_frames, sentence_of, shortened
from cccad_core.errors import CccadError
from cccad_data import commands
from cccad_data.process import Stopped, end_with

from cccad_train.variables import VERSIONED, settle

ONLY = ("collect", "pretrain", "train", "evaluate", "release", "report")
"""The kinds of stages, in the order in which a run comes to them."""
FAILURES = ("CollectionError", "DivergedError", "LostProcessError")
"""Errors of a run, not of its user."""
RESUMES = "; what was finished is kept, and --resume goes on"


versioned = commands.versioned("cccad-train", *(name for name in VERSIONED if name != "cccad-train"))

threaded = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of each process; another number adds up in another order. OMP_NUM_THREADS is not asked.",
)
device_option = click.option("--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True)


EXAMPLES = {
    "compressor": "ema_compressor.py",
    "encoder": "bucket_encoder.py",
    "head": "smoothed_head.py",
    "memory": "gru_memory.py",
    "objective": "smoothed_objective.py",
    "trigger": "reset_trigger.py",
}
"""Parts that are not ours, in one file each, by kind; they lie in the folder `plugins` of the repository."""


def _how_to_add(kind: str) -> str:
    """Return how a person adds a part of *kind*."""
    lines = [
        f'Add your own: a Python file with @register("{kind}", NAME) above the class of its fields,',
        "which a spec names under 'imports'.",
    ]
    if kind != "executor":  # for which there are no laws
        lines.append(f"Try it:       cccad check {kind} NAME --imports FILE")
    if kind in EXAMPLES:
        lines.append(f"An example:   plugins/{EXAMPLES[kind]}")
    return "\n".join([*lines, "What it must have, and why: CONTRIBUTING.md"])


def guarded(work: Callable[[], None], kept: str = "", *, shows_frames: bool = False) -> None:
    """Do *work*; a user's mistake becomes one clear message and exit code 2, a failure of the run exit code 1.

    A signal ends it with 128 and its number. *kept* says what a command leaves that ends before its time.
    *shows_frames*: where a part that is not ours failed, its own lines of the traceback stand before the message.
    """
    commands.guarded(work, lambda error: _verdict(error, kept, shows_frames))


def _verdict(error: Exception | Stopped, kept: str, shows_frames: bool) -> tuple[str, int]:
    """Return what to say of *error*, nothing if it is nobody's but ours, and the exit code."""
    if isinstance(error, Stopped):
        return str(error if error.where else Stopped(error.number, kept)), error.code
    if isinstance(error, CccadError) or type(error).__module__.startswith("cccad_"):
        message = str(error) if shows_frames else shortened(str(error))
        code = 1 if type(error).__name__ in FAILURES else 2
    else:
        code, message = 1, sentence_of(error)
        if not message and isinstance(error, OSError):
            where = f": {error.filename}" if error.filename else ""
            message = f"the run stopped: {(error.strerror or str(error)).splitlines()[0]}{where}{kept}"
    frames = own_frames(error) if shows_frames and message else ""
    return "\n".join(part for part in (frames, message) if part), code


_trust = click.option(
    "--trust-plugins", is_flag=True, help="Run the Python files that lie in the run folder; read them before."
)

_frames = click.option(
    "--traceback", "shows_frames", is_flag=True, help="Where a part that is not ours fails, show its own lines."
)


@click.command("run")
@versioned
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a field with a TOML value.")
@click.option("--out", type=click.Path(path_type=Path), help="Runs go here: 'runs', or where a run's spec.toml lies.")
@click.option("--resume", is_flag=True, help="Continue an unfinished run of this spec.")
@click.option("--dry-run", is_flag=True, help="Check the spec, print it resolved with what would be done, and stop.")
@click.option("--only", type=click.Choice(ONLY), help="Do this stage alone.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Training processes.")
@threaded
@device_option
@_trust
@_frames
@click.pass_obj
def run(is_launchable: bool | None, /, *, shows_frames: bool = False, **options: Any) -> None:
    """Run the experiment in SPEC: collect, pretrain, train, evaluate, release, report."""

    def work() -> None:
        place = settle(num_threads=options["threads"], is_launchable=bool(is_launchable))
        if place.parent:  # others write what we would write then; a foreign launcher's processes may still save
            end_with(place.parent, signal.SIGKILL if place.is_owned else signal.SIGTERM)
        from cccad_train.run.execute import Order, execute  # torch is imported only now

        execute(Order(**options, place=place))

    guarded(work, RESUMES, shows_frames=shows_frames)


def _collect(**options: Any) -> None:
    """Collect the learning histories of the experiment in SPEC, and stop; what is there already stays."""
    run.callback(**options, only="collect", processes=1, threads=1, device="auto")  # type: ignore[misc]


collect = click.Command(
    "collect",
    params=[each for each in run.params if each.name in {"spec", "overrides", "out", "resume", "dry_run"}],
    callback=_collect,
    help=_collect.__doc__,
)


@click.group()
@versioned
def main() -> None:
    """Compressed-context Algorithm Distillation: look around, evaluate, report."""


@main.command("list")
@click.argument("kind", required=False)
def list_parts(kind: str | None) -> None:
    """List registered parts, all or of one KIND (compressor, tokens, curriculum, env, source, executor)."""
    from cccad_core.registry import KINDS, entries, lookup

    from cccad_train.console import wrapped

    def show() -> None:
        for each in [kind] if kind else KINDS:
            click.echo(f"{each}:")
            for entry in entries(each):
                doc = "" if entry.error else (inspect.getdoc(lookup(each, entry.name)) or "").partition("\n")[0]
                summary = f"BROKEN: {entry.error}" if entry.error else doc
                click.echo(wrapped(f"  {entry.name:18s} {entry.distribution} {entry.version}  {summary}".rstrip()))
        click.echo(wrapped("\nMore on one of them: cccad describe KIND NAME; on a whole experiment: cccad describe"))

    guarded(show)


@main.command("describe")
@click.argument("kind", required=False)
@click.argument("name", required=False)
def describe_part(kind: str | None, name: str | None) -> None:
    """Say what part NAME of KIND does and list its fields; without them, describe the fields of an experiment."""
    from cccad_core.registry import lookup, names
    from cccad_core.specs import describe

    from cccad_train.console import wrapped

    def show() -> None:
        if kind is None:
            from cccad_train.experiment import ExperimentSpec

            click.echo(wrapped(describe(ExperimentSpec)))
        elif name is None:
            click.echo("\n".join([*names(kind), "", wrapped(_how_to_add(kind))]))
        else:
            click.echo(wrapped(f"{kind} {name}: {describe(lookup(kind, name))}"))

    guarded(show)


@main.command("data", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def data(arguments: tuple[str, ...]) -> None:
    """`collect SPEC` collects the histories of a spec; all else (info, verify, ...) is `cccad-data`."""
    from cccad_data.cli import main as data_main

    if arguments[:1] == ("collect",):
        collect(args=[*arguments[1:]], prog_name="cccad data collect")
    if not arguments or arguments[0] in {"--help", "-h"}:
        click.echo("cccad data collect SPEC  collects the histories of a spec; more: cccad data collect --help\n")
    sys.exit(data_main(list(arguments)))


@main.command("evaluate")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As in evaluate.num_episodes=500.")
@threaded
@device_option
@_trust
@_frames
def evaluate(
    run_folder: Path, overrides: tuple[str, ...], device: str, threads: int, trust_plugins: bool, shows_frames: bool
) -> None:
    """Play the held-out tasks again with the policies of RUN_FOLDER, and rewrite its results and report."""

    def work() -> None:
        settle(num_threads=threads)
        from cccad_train.run.execute import evaluate_again

        evaluate_again(run_folder, overrides, device, threads, trust_plugins=trust_plugins)

    guarded(work, "; every file of the run is whole, the old one or the new one", shows_frames=shows_frames)


@main.command("report")
@click.argument("run_folders", nargs=-1, required=True, type=click.Path(path_type=Path))
def report(run_folders: tuple[Path, ...]) -> None:
    """Write the report of one run, or a comparison of several."""

    def show() -> None:
        from cccad_train.files import owning
        from cccad_train.report.page import write_comparison, write_report

        with owning(run_folders[0]) if len(run_folders) == 1 else nullcontext():
            page = write_report(run_folders[0]) if len(run_folders) == 1 else write_comparison(run_folders)
        click.echo(f"report: {page}")

    guarded(show)


@main.command("memory-report")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="The page; RUN_FOLDER/memory.html without."
)
@click.option("--lives", type=click.IntRange(min=1), default=128, show_default=True, help="On held-out tasks.")
@threaded
@device_option
@_trust
def memory_report(
    run_folder: Path, out: Path | None, lives: int, device: str, threads: int, trust_plugins: bool
) -> None:
    """Look into the latents of RUN_FOLDER's agent: probes, swaps, attention, retention; play it to find out."""

    def show() -> None:
        settle(num_threads=threads)
        from cccad_train.files import owning
        from cccad_train.memory_study.page import write_memory_report
        from cccad_train.run.execute import reopened

        run = reopened(run_folder, (), device, threads, trust_plugins=trust_plugins)
        with owning(run.folder.path):
            page, table = write_memory_report(run, lives, out)
        click.echo(f"{table}\nmemory: {page}")

    guarded(show)


@main.command("convert")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@_trust
def convert(old: Path, new: Path, trust_plugins: bool) -> None:
    """Write the policy, results or histories in OLD, of an earlier format, to NEW in the newest."""

    def work() -> None:
        settle(num_threads=1)
        from cccad_train.convert import convert as converted

        click.echo(converted(old, new, trust_plugins=trust_plugins))

    guarded(work)


@main.command("check")
@click.argument("what", nargs=-1, required=True, metavar="SPEC | KIND NAME")
@click.option("--imports", multiple=True, type=click.Path(path_type=Path), help="A Python file with parts.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a field of SPEC, or of the part.")
@_trust
@_frames
def check(
    what: tuple[str, ...],
    imports: tuple[Path, ...],
    overrides: tuple[str, ...],
    trust_plugins: bool,
    shows_frames: bool,
) -> None:
    """Put every part of an experiment, or the part NAME of KIND, to all the laws that there are for its kind."""
    if len(what) > 2:
        raise click.UsageError("give a SPEC, or a KIND and a NAME")

    def show() -> None:
        settle(num_threads=1)
        from cccad_core.registry import import_file

        from cccad_train.preflight import check_experiment, check_part
        from cccad_train.run.execute import opened

        for file in imports:
            import_file(file)
        if len(what) == 2:
            click.echo(check_part(*what, overrides))
            return
        for line in check_experiment(opened(Path(what[0]), overrides, trust_plugins=trust_plugins)):
            click.echo(line)

    guarded(show, shows_frames=shows_frames)


main.add_command(run)

if __name__ == "__main__":
    run()
