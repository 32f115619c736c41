"""The HTML pages: Jinja2 over the sections, one file that needs no other and no script."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lira.atomic import write_atomically
from lira.errors import InputError
from lira.report import comparison, figures, plots, results, sections, text
from lira.report.figures import Panel, svg
from lira.report.plots import classes_table
from lira.report.results import Results
from lira.storage.checksums import digest
from lira.storage.runs import Run

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 96  # pixels: larger images are made this small, smaller ones stay as they are


def render(template: str, **content) -> str:
    """A page of lira/templates, whatever folder we stand in; all that is filled in is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["style"] = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # our own, no input
    return environment.get_template(template).render(**content).lstrip()


def report_page(results: Results, plots: dict[str, list[Panel]]) -> str:
    """The page of one run. plots: as plots.plots() gives them."""
    figures = _figures(results, plots)
    shown = {"attacks", *(part["id"] for part in figures if part["plots"] or part["images"])}
    return render(
        "report.html",
        title=sections.title(results),
        subtitle=sections.subtitle(results),
        answer=sections.answer(results),
        epsilon=sections.epsilon(results),
        attacks=sections.attacks(results),
        figures=figures,
        threat=sections.threat(results),
        made=sections.made(results),
        reading=[row for row in sections.READING if row[0] in shown],
        folder=str(results.folder),
    )


def compare_page(runs: list[Results], plots: dict[str, list[Panel]], folder: Path) -> str:
    """The page that shows several runs side by side."""
    drawn = [plot(panel) for panel in plots.get("roc_log", [])]
    reading = next(sentence for id, _, sentence in sections.READING if id == "roc")
    return render("compare.html", plots=drawn, reading=reading, folder=str(folder), **comparison.page(runs))


def data_uri(content: bytes | str, kind: str) -> str:
    content = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def plot(panel: Panel) -> dict:
    """What the template needs of one panel: SVGs for light and dark, size in CSS pixels, alt text."""
    light, dark = (data_uri(text, "image/svg+xml") for text in svg(panel))
    width, height = (round(96 * inches) for inches in panel.size)
    return {"light": light, "dark": dark, "width": width, "height": height, "alt": panel.alt}


# --- the sections with figures -----------------------------------------------------------------------------------


def _figures(results: Results, plots: dict[str, list[Panel]]) -> list[dict]:
    several = len(results.targets) > 1
    marked = " and ".join(results.highlighted)
    return [
        _section("roc", "ROC on logarithmic axes", plots.get("roc_log"), results.missing.get("samples.csv"),
                 caption=f"Bold: {marked}, with their 95 % intervals where the samples resolve them."
                 + " Mean over the targets." * several),
        _section("histogram", "Scores of members and non-members", plots.get("histogram", [])[: len(results.highlighted)],
                 results.missing.get("samples.csv"),
                 caption="The samples of all targets together." if several else "The samples of the target."),
        _section("curve", "Accuracy against the number of shadows", plots.get("curve"),
                 results.missing.get("curve.csv"),
                 caption=f"Bold: {marked}, with 95 % intervals." + " All targets together." * several),
        _section("exposed", "The most and the least exposed images", None, "")
        | {"images": _images(results), "missing": _no_images(results)},
        _section("classes", "Exposure by class", plots.get("classes"), results.missing.get("classes.csv"),
                 caption=f"How often {results.strongest} is right about the samples of a class.") | _classes(results),
        _section("training", "Training curves", plots.get("training"),
                 "No training curves: this run has no train/*.csv.",
                 caption="Lines: the targets. Bands: from the lowest to the highest shadow."),
    ]  # fmt: skip


def _section(id: str, title: str, panels: list[Panel] | None, missing: str | None, *, caption: str = "") -> dict:
    """panels: drawn; without them the reason why is shown."""
    drawn = [plot(panel) for panel in panels or []]
    reason = "" if drawn else missing or "What lies on disk does not allow this figure."
    return {"id": id, "title": title, "plots": drawn, "caption": caption, "missing": reason} | dict.fromkeys(
        ("images", "rows", "note", "head", "summary"), ()
    )


def _classes(results: Results) -> dict:
    table = classes_table(results)
    if table is None or not len(table):
        return {}
    rows = [
        sections.line(row["class"], [*sections.figures(row, rates=()), sections.cell(f"{row.n_guesses:,}")])
        for _, row in table.iterrows()
    ]
    head = ["class", "accuracy", "AUC", "guesses"]
    return {
        "rows": rows,
        "head": head,
        "summary": f"All {text.plural(len(rows), 'class')}".replace("classs", "classes"),
    }


def _no_images(results: Results) -> str:
    if "samples.csv" in results.missing:
        return results.missing["samples.csv"]
    if not results.images:
        return "No images: only scores are known, or the attack was run before it saved them. The samples by number:"
    return ""


def _images(results: Results) -> list[dict]:
    titles = (f"Most exposed members of {results.targets[0]}", "Least exposed")
    return [
        {"title": title, "members": [_image(row, results) for row in part.itertuples()]}
        for title, part in zip(titles, results.exposed(), strict=True)
        if len(part)
    ]


def _image(row, results: Results) -> dict:
    name, score = results.class_name(row.label), text.score(row.score)
    found = results.images.get(row.sample)
    alt = f"{name}, sample {row.sample}, score {score}"
    return {"src": found is not None and _png(found), "alt": alt, "name": name, "score": score, "sample": row.sample}


def _png(image: np.ndarray) -> str:
    """image: uint8 (C, H, W)."""
    thumbnail = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0).squeeze()))
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    thumbnail.save(file, format="png")
    return data_uri(file.getvalue(), "image/png")


# --- files ---


COLUMNS = {"histogram": 3}


def write(run: Run) -> tuple[Results, Path]:
    """Draw and write every figure and report.html of a run. Returns what was read, and where the page lies."""
    found = results.read(run)
    drawn = plots.plots(found)
    _save_figures(found.folder, drawn, title=found.name)
    path = found.folder / "report.html"
    _save(path, report_page(found, drawn).encode())
    return found, path


def compare(result_dir: str, names: Sequence[str]) -> Path:
    """Write the page of several attacked runs into a folder that is named after them. Returns where it lies.

    names: folders of result_dir, or paths. Raises InputError naming the run that is missing or was not attacked."""
    folders = dict.fromkeys(_folder(result_dir, name).resolve() for name in names)
    found = [results.read(Run(folder, folder)) for folder in folders]
    folder = Path(result_dir) / f"compare-{digest(list(map(str, folders)))[:8]}"
    panels = comparison.plots(found)
    _save_figures(folder, panels, title="")
    path = folder / "report.html"
    _save(path, compare_page(found, panels, folder).encode())
    return path


def _folder(result_dir: str, name: str) -> Path:
    for path in (Path(result_dir) / name, Path(name)):
        if path.is_dir():
            return path
    there = sorted(path.parent.name for path in Path(result_dir).glob("*/attack.csv"))
    raise InputError(
        f"--compare {name}: no such run in {result_dir}, and no such folder"
        + (f"; attacked runs there: {', '.join(there)}" if there else "")
    )


def _save_figures(folder: Path, drawn: dict[str, list[Panel]], *, title: str) -> None:
    for name, panels in drawn.items():
        for suffix, content in figures.paper(panels, title=title, columns=COLUMNS.get(name, 2)).items():
            _save(folder / f"{name}{suffix}", content)


def _save(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
