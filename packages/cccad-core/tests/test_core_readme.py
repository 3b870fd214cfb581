"""The README's example runs and prints what it says."""

import re
import tomllib
from pathlib import Path

from cccad_core.policy import PolicySpec
from cccad_core.spaces import Box, Dict, Discrete, Spaces
from cccad_core.specs import structure

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_prints_what_its_comments_say(capsys):
    [code] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert len(promised) == 2
    assert capsys.readouterr().out.splitlines() == promised


def test_the_encoder_of_the_readme_reads_what_it_names():
    [text] = re.findall(r"```toml\n(\[policy\.encoder\].*?)```", README, flags=re.DOTALL)
    spec = structure(tomllib.loads(text)["policy"], PolicySpec)
    agent = Dict({"speed": Box((2,), -1.0, 1.0), "place": Discrete(4)})
    grid = Box((7, 7, 3), 0, 10, dtype="uint8")
    observation = Dict({"image": grid, "agent": agent, "clock": Discrete(99)})
    policy = spec.build(Spaces(observation=observation, action=Discrete(3)), seed=0)
    kinds = [type(encoder).__name__ for encoder in policy.layout.observation.encoders]
    assert kinds == ["Table", "Projection", "Cells"]
