"""The pages, report.html of a run and of a comparison: each one file, without scripts or requests."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lira.atomic import write_atomically
from lira.errors import CONTROL
from lira.report import comparison, figures, plots, sections, text
from lira.report.figures import Panel
from lira.report.plots import PLOTS, Plot
from lira.report.results import Results, exposed_members, read
from lira.storage.checksums import digest
from lira.storage.config import find_folder
from lira.storage.runs import Run

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 96  # pixels: larger images are reduced to this size


def render(template: str, **content: Any) -> str:
    """One of the templates, filled in; everything that is filled in is escaped, its control characters replaced."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # ours, not input
    return CONTROL.sub("\ufffd", environment.get_template(template).render(**content).lstrip())


def report_page(results: Results, panels: Mapping[str, list[Panel]]) -> str:
    """The page of one run. panels: as plots.plots() returns them."""
    on_page = [(plot, _section(plot, results, panels.get(plot.name, []))) for plot in PLOTS if plot.title]
    reading = [
        (plot.name, part["title"], plot.reading)
        for plot, part in on_page
        if (part["plots"] or part["images"]) and not part["reading"]
    ]
    epsilon = sections.epsilon(results)
    if epsilon["scale"]:
        reading.insert(0, ("epsilon", "Bounds on epsilon", sections.READING_EPSILON))
    return render(
        "report.html",
        title=sections.title(results),
        subtitle=sections.subtitle(results),
        accuracy=sections.accuracy(results),
        exposed=sections.exposed(results),
        epsilon=epsilon,
        attacks=sections.attacks(results),
        figures=[part for _, part in on_page],
        threat=sections.threat(results),
        provenance=sections.provenance(results),
        reading=[
            ("identified", "Who is exposed", sections.READING_EXPOSED),
            ("attacks", "Table of attacks", sections.READING_ATTACKS),
            *reading,
        ],
        folder=str(results.folder),
    )


def compare_page(runs: list[Results], panels: Mapping[str, list[Panel]], folder: Path) -> str:
    """The page of several runs side by side. panels: as comparison.plots() returns them."""
    drawn = list(map(_embed, panels.get("roc_log", [])))
    reading = next(plot.reading for plot in PLOTS if plot.name == "roc_log")
    return render("compare.html", plots=drawn, reading=reading, folder=str(folder), **comparison.page(runs))


def _section(plot: Plot, results: Results, panels: list[Panel]) -> dict:
    drawn = list(map(_embed, panels[: plot.n_on_page(results)]))
    images = _images(results) if plot.name == "exposed" else []
    missing = next((results.missing[name] for name in plot.needs if name in results.missing), "")
    if not (drawn or images or missing):
        missing = "The files of this run do not allow this figure."
    table = sections.classes(results) if plot.name == "classes" else None
    words = plots.words(results)
    caption = plot.caption.format(**words)
    if len(results.targets) > 1:
        caption += plot.caption_over_targets
    lines = text.curve_lines(results) if plot.name == "curve" else []
    part = dict(id=plot.name, title=plot.title.format(**words), caption=caption, lines=lines)
    part |= {"reading": plot.reading if len(drawn) == 1 else ""}  # beside a single figure
    return part | dict(plots=drawn, images=images, table=table, missing=missing)


def _embed(panel: Panel) -> dict:
    """What the template needs of one panel: SVGs for light and dark, size in CSS pixels, alt text."""
    light, dark = (_data_uri(svg.encode(), "image/svg+xml") for svg in figures.svg(panel))
    width, height = (round(96 * inches) for inches in panel.size)
    size = {"width": width, "height": height}
    return {"light": light, "dark": dark, "alt": panel.alt, "is_legend": panel.is_legend} | size


def _images(results: Results) -> list[dict]:
    """The most and the least exposed members; by number alone where the run has no images."""
    titles = (f"Most exposed members of {results.targets[0]}", "Least exposed")
    return [
        {"title": title, "members": [_image(row, results) for row in members.itertuples()]}
        for title, members in zip(titles, exposed_members(results.tables), strict=True)
        if len(members)
    ]


def _image(member: Any, results: Results) -> dict:
    """member: a row of exposed_members()."""
    name, score = results.class_name(member.label), text.number(member.score, ".3g")
    name = f"class {name}" if name.isdecimal() else name
    image, alt = results.images.get(member.sample), f"{name}, sample {member.sample}, score {score}"
    src = "" if image is None else _png(image)
    return {"src": src, "alt": alt, "name": name, "score": score, "sample": member.sample}


def _png(image: np.ndarray) -> str:
    """image: uint8 (C, H, W)."""
    thumbnail = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0).squeeze()))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    thumbnail.save(file, format="png")
    return _data_uri(file.getvalue(), "image/png")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write(run: Run) -> tuple[Results, Path]:
    """Draw and write every figure and report.html of a run. Returns the results as read, and the path of the page."""
    results = read(run)
    panels = plots.plots(results)
    _save_figures(results.folder, panels, title=results.name)
    return results, _save(results.folder / "report.html", report_page(results, panels).encode())


def compare(result_dir: str, names: Sequence[str]) -> Path:
    """Write the page of several attacked runs into a folder named after them. Returns the path of the page.

    names: folders in result_dir, or paths. Raises InputError naming the run that is missing or was not attacked."""
    folders = dict.fromkeys(find_folder("--compare", name, (result_dir,), "attack.csv").resolve() for name in names)
    runs = [read(Run(folder, folder)) for folder in folders]
    folder = Path(result_dir) / f"compare-{digest(list(map(str, folders)))[:8]}"
    panels = comparison.plots(runs)
    _save_figures(folder, panels, title="")
    return _save(folder / "report.html", compare_page(runs, panels, folder).encode())


def _save_figures(folder: Path, panels: Mapping[str, list[Panel]], *, title: str) -> None:
    columns = {plot.name: plot.columns for plot in PLOTS}
    for name, drawable in panels.items():
        for suffix, content in figures.paper(drawable, title=title, columns=columns[name]).items():
            _save(folder / f"{name}{suffix}", content)
    for plot in PLOTS:
        if plot.name not in panels:  # of an earlier attack
            for suffix in (".png", ".pdf"):
                (folder / f"{plot.name}{suffix}").unlink(missing_ok=True)


def _save(path: Path, content: bytes) -> Path:
    write_atomically(path, lambda file: file.write(content))
    return path
