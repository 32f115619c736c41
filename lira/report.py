"""Writes what people look at: the figures for papers and the page, from what lies in result/<run>/."""

from collections.abc import Sequence
from pathlib import Path

from lira import comparison, figures, page, plots, results
from lira.disk import digest, write_atomically
from lira.errors import InputError
from lira.figures import Panel
from lira.results import Results
from lira.runs import Run

COLUMNS = {"histogram": 3}


def write(run: Run) -> tuple[Results, Path]:
    """Draw and write every figure and report.html of a run. Returns what was read, and where the page lies."""
    found = results.read(run)
    drawn = plots.plots(found)
    _save_figures(found.folder, drawn, title=found.name)
    path = found.folder / "report.html"
    _save(path, page.report(found, drawn).encode())
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
    _save(path, page.compare(found, panels, folder).encode())
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
