"""What the documents say is so: the compressor of CONTRIBUTING obeys the laws, and what is linked to is there."""

import re
from pathlib import Path

import pytest
from cccad_core.laws.compressor import check_compressor
from cccad_core.registry import REGISTRY, import_file, lookup

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("packages/*/README.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]


def names_of(documents):
    return [str(document.relative_to(ROOT)) for document in documents]


def anchors(text):
    """Return the anchors of a document's headings, as they are made on the web."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_compressor_of_contributing_obeys_the_laws(tmp_path, monkeypatch):
    for name in ("_in_code", "_files"):
        monkeypatch.setattr(REGISTRY, name, {})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    [code] = [block for block in blocks if "@register" in block]
    (tmp_path / "my_compressor.py").write_text(code, encoding="utf-8")
    import_file(tmp_path / "my_compressor.py")
    check_compressor(lookup("compressor", "fading-mean")(keep_frac=0.8))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of(DOCUMENTS))
def test_every_link_to_a_file_leads_somewhere(document):
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = document.parent / path if path else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            lost.append(target)
    assert lost == []


def test_every_experiment_that_the_readme_names_is_there():
    named = set(re.findall(r"experiments/[\w/]+\.toml", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []
