"""The README's examples run as they stand."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
def test_the_examples_in_the_readme_run_and_print_what_they_say(example, capsys):
    exec(compile(example, str(README), "exec"), {})
    promised = re.findall(r"print\(.*?\)  # (.*)", example)
    assert capsys.readouterr().out.splitlines() == promised
