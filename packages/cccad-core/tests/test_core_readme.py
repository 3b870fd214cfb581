"""The README's example runs and prints what it says."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_prints_what_its_comments_say(capsys):
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert len(promised) == 2
    assert capsys.readouterr().out.splitlines() == promised
