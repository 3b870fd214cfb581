"""Cut the learning curve out of a run's report, with its legend, as a figure that stands alone.

.venv/bin/python studies/figure.py runs/cad_darkroom-...-s0 docs/figures/cad_darkroom.svg
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

HEIGHT, FIRST_ROW, ROW, COLUMNS = 400, 421, 26, (62, 402)


class Page(HTMLParser):
    """The text of the page's headline."""

    def __init__(self) -> None:
        super().__init__()
        self.headline, self.inside = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "p" and ("class", "headline") in attrs and not self.headline

    def handle_data(self, data: str) -> None:
        self.headline += data if self.inside else ""


def figure(html: str) -> str:
    """Return the first chart of a report, its legend below it, in the report's own colours."""
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    chart = re.search(r'<svg class="chart [^>]*>(.*?)</svg>', html, re.DOTALL)
    legend = re.findall(r'<svg viewBox="0 0 34 10".*?class="line ([^"]+)".*?</svg>\s*([^<]+)', html, re.DOTALL)
    if not (style and chart and legend):
        raise SystemExit("figure: this page has no chart with a legend; give a run whose report is written")
    page, rows = Page(), []
    page.feed(html)
    listed = dict.fromkeys((kind, name.strip()) for kind, name in legend)
    for index, (kind, name) in enumerate(listed):
        x, y = COLUMNS[index % 2], FIRST_ROW + ROW * (index // 2)
        rows.append(f'<line class="line {kind}" x1="{x}" x2="{x + 34}" y1="{y}" y2="{y}"/>')
        rows.append(f'<text class="note" x="{x + 44}" y="{y + 5}">{name}</text>')
    height = FIRST_ROW + ROW * ((len(listed) + 1) // 2)
    size = f'width="760" height="{height}" viewBox="0 0 760 {height}" font-family="system-ui, sans-serif"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart small" {size}>',
        f"<title>{' '.join(page.headline.split())}</title>",
        f"<style>{style[1]}</style>",
        '<rect width="100%" height="100%" fill="var(--bg)"/>',
        chart[1],
        *rows,
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.write_text(figure((run / "report.html").read_text(encoding="utf-8")), encoding="utf-8")
