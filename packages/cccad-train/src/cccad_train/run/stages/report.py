"""The stage `report`: a page that anybody can open, and the table of results for the terminal."""

from cccad_train.console import say
from cccad_train.report.page import summary_table, write_report
from cccad_train.report.runs import read_run
from cccad_train.run.graph import Stage
from cccad_train.run.run import Run


def do_report(run: Run, _: Stage) -> None:
    """Write `report.html` and print where it lies, and the table of results."""
    if run.is_main:
        page = write_report(run.folder.path)
        say(f"{summary_table(read_run(run.folder.path).results)}\nreport: {page}")
