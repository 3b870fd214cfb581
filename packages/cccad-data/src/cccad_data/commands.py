"""What all commands of ours share: `--version`, and one line and an exit code for whatever ends them early."""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import TypeVar

import click

from cccad_data.process import Stopped, print_anything, stoppable, versions

T = TypeVar("T")
Verdict = Callable[[Exception | Stopped], tuple[str, int]]
"Returns what to say of an error and the exit code; an empty text for a fault of ours, which needs its traceback."


def versioned(ours: str, *others: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Return the option `--version`, which prints the version of *ours*, and those of what it computes with."""

    def show(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
        if is_wanted:
            listed = ", ".join(f"{name} {number}" for name, number in versions(*others).items())
            click.echo(f"{context.info_name} {version(ours)} ({listed})")
            context.exit()

    text = "Print the versions of our packages and of what they compute with, and stop."
    return click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show, help=text)


def guarded(work: Callable[[], T], verdict: Verdict) -> T:
    """Return what *work* does; an error becomes the one message and the exit code of *verdict*, and a signal too.

    A reader of our output that has read enough ends the command with exit code 1, without a word.
    """
    print_anything()
    try:
        with stoppable():
            result = work()
            sys.stdout.flush()
            return result
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(1)
    except (Exception, Stopped) as error:
        message, code = verdict(error)
        if not message:
            raise
        click.echo(message, err=True)
        sys.exit(code)
