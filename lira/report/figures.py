"""The figures, from what lies in result/<run>/. Statistics come from elsewhere.

A figure is one or more panels: together they are the PNG and PDF for papers, and each panel is an SVG of the page, as
wide as a phone. The SVG is drawn once, in the colours of paper; its dark twin is the same text with other colours."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lira.attacks.registry import ATTACKS

# Colour on paper -> colour on a dark page. First ink, second ink and grid. Then Okabe and Ito's palette, its yellow,
# grey and black replaced by two of Tol's and a dark grey: told apart by the colour-blind, and in print.
INK, MUTED, GRID = "#1c1e21", "#5d636a", "#dddad2"
DARK = {
    INK: "#e9e7e2", MUTED: "#9aa0a6", GRID: "#33363a",
    "#0072b2": "#5cb3ea", "#d55e00": "#f58b4c", "#009e73": "#2fc79a", "#cc79a7": "#e3a1c5", "#e69f00": "#f2b83a",
    "#56b4e9": "#a5dbf8", "#4d4d4d": "#c8c8c8", "#882255": "#d67ba6", "#999933": "#c4c45f",
}  # fmt: skip
COLOURS = tuple(DARK)[3:]
ACCENT, SECOND = COLOURS[:2]
STYLES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))
MARKERS = "osD^vPX<>*"
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.5g}%")
_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Noto Sans", "Arial Unicode MS")  # for names of classes
_PDF_FIELDS = ("CreationDate", "Creator", "Producer")
_SVG_FIELDS = ("Date", "Creator", "Format", "Type")
_STYLE = {
    "font.size": 9.5, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.7, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8.5,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "svg.hashsalt": "lira", "pdf.fonttype": 42,
    "axes.formatter.use_mathtext": False, "path.simplify_threshold": 0.2,
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """draw(axes); alt: what it shows, in words and numbers; size: inches; title: above it on paper."""

    draw: Callable[[Axes], None]
    alt: str
    size: tuple[float, float] = (4.6, 3.2)


def paper(panels: list[Panel], *, title: str, columns: int = 2) -> dict[str, bytes]:
    """The panels as one figure: suffix (".png", ".pdf") -> bytes; without a date, so that equal figures are equal."""
    with _drawing():
        columns = min(columns, len(panels))
        width, height = panels[0].size
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(width * columns, height * rows + 0.3), dpi=150, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, panel in zip(axes, panels, strict=False):
            panel.draw(place)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        figure.suptitle(title, fontsize=8, color=MUTED, parse_math=False)
        _lay_out(figure)
        return {
            ".png": _written(FigureCanvasAgg(figure).print_png, metadata={"Software": None}),
            ".pdf": _written(FigureCanvasPdf(figure).print_pdf, metadata=dict.fromkeys(_PDF_FIELDS)),
        }


def svg(panel: Panel) -> tuple[str, str]:
    """One panel for the page: (light, dark)."""
    with _drawing():
        figure = Figure(figsize=panel.size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        panel.draw(axes)
        _lay_out(figure)
        light = _written(FigureCanvasSVG(figure).print_svg, metadata=dict.fromkeys(_SVG_FIELDS)).decode()
    light = light[light.index("<svg") :]
    return light, re.sub("|".join(DARK), lambda colour: DARK[colour[0]], light)


class _drawing:
    """The style of all figures, with a font for the names of classes that the first font has no letters for."""

    def __enter__(self):
        known = {font.name for font in font_manager.fontManager.ttflist}
        family = ["DejaVu Sans", *(name for name in _FONTS if name in known)]
        self._style, self._warnings = mpl.rc_context(_STYLE | {"font.family": family}), warnings.catch_warnings()
        self._style.__enter__()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box is drawn; the page has the name as text

    def __exit__(self, *error):
        self._warnings.__exit__(*error)
        self._style.__exit__(*error)


def _lay_out(figure: Figure) -> None:
    """Once, for all files; and written by the canvas itself: savefig() would draw every figure twice."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")


def _written(write: Callable, **how) -> bytes:
    file = io.BytesIO()
    write(file, **how)
    return file.getvalue()


def _line(attack: str, highlighted: Iterable[str]) -> dict:
    """Colour, style and weight of an attack: the same in every figure, the highlighted ones bold."""
    highlighted = list(highlighted)
    if attack in highlighted:
        place = highlighted.index(attack)
        colour, style = COLOURS[place % len(COLOURS)], STYLES[place % len(STYLES)]
        return {"color": colour, "ls": style, "lw": 2.2, "zorder": 3 + 1 / (1 + place)}
    place = list(ATTACKS).index(attack) if attack in ATTACKS else len(ATTACKS)
    return {"color": COLOURS[2 + place % (len(COLOURS) - 2)], "ls": STYLES[place % 4], "lw": 1.1, "zorder": 2}


def _ordered(names: Iterable[str], highlighted: Iterable[str]) -> list[str]:
    """The highlighted ones first: in the legend too."""
    names = list(names)
    return sorted(
        names, key=lambda name: (name not in highlighted, list(highlighted).index(name) if name in highlighted else 0)
    )


def _marker(attack: str) -> str:
    place = list(ATTACKS).index(attack) if attack in ATTACKS else 0
    return MARKERS[place % len(MARKERS)]


# --- ROC ---------------------------------------------------------------------------------------------------------


def roc(
    axes: Axes, curves: Mapping[str, tuple], bars: Mapping[str, list], *, highlighted: list[str], floor=None, columns=3
):
    """The ROC of every attack. curves: name -> (fpr, tpr); bars: name -> (fpr, fpr_low, fpr_high, tpr, tpr_low,
    tpr_high) of some points; highlighted: drawn boldly; floor: the smallest rate on log axes, None for linear ones."""
    low = floor or 0
    for attack in _ordered(curves, highlighted):
        fpr, tpr = curves[attack]
        line = _line(attack, highlighted)
        label = attack.replace("$", r"\$")
        axes.plot(np.append(fpr, 1), np.append(tpr, 1), label=label, drawstyle="steps-post", **line)
        for x, x_low, x_high, y, y_low, y_high in bars.get(attack, []):
            if y_low > 0 and x >= low:
                common = dict(color=line["color"], lw=1.3, zorder=5)
                axes.plot([x, x], [y_low, y_high], **common, solid_capstyle="butt")
                axes.plot([max(x_low, low), x_high], [y, y], **common, solid_capstyle="butt")
                axes.plot([x], [y], _marker(attack), ms=4, **common)
    axes.plot([low, 1], [low, 1], color=MUTED, lw=1, ls=(0, (1, 2)), label="guessing")
    if floor:
        axes.set(xscale="log", yscale="log")
    axes.set(xlim=(low, 1), ylim=(low, 1), xlabel="false-positive rate", ylabel="true-positive rate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT)
    axes.set_aspect("equal")
    axes.minorticks_off()
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=columns, columnspacing=1.2, handlelength=2.4)


# --- scores ------------------------------------------------------------------------------------------------------


def histogram(axes: Axes, attack: str, members: np.ndarray, others: np.ndarray, thresholds: Iterable[float]) -> None:
    """Members' and non-members' scores of one attack, those of all targets together, with each target's threshold.

    The tails beyond the outer 2.5 % are gathered at the edges, so that one extreme sample does not flatten the rest."""
    axes.set_title(attack)
    both = np.concatenate([members, others])
    if not len(both):
        axes.set_title(f"{attack}: no scores")
        return
    low, high = np.quantile(both, [0.025, 0.975])
    bins = np.linspace(low, high if high > low else low + 1, 61)
    parts = (("non-members", others, SECOND, "//"), ("members", members, ACCENT, None))
    for name, values, colour, hatch in parts:
        heights = np.histogram(np.clip(values, low, high), bins)[0]
        axes.stairs(heights, bins, fill=True, color=colour, alpha=0.35, lw=0)
        axes.stairs(heights, bins, color=colour, lw=1.4, ls="--" if hatch else "-", label=name)
    inside = sorted({cut for cut in thresholds if bins[0] <= cut <= bins[-1]})
    for number, cut in enumerate(inside):
        axes.axvline(cut, color=INK, lw=0.9, ls=":", label="" if number else "threshold")
    if not inside and (cuts := [cut for cut in thresholds if not np.isnan(cut)]):
        axes.set_title(f"{attack} (threshold {cuts[0]:.3g})")
    axes.set(xlim=(bins[0], bins[-1]), xlabel="score: higher = more likely a member", ylabel="samples")
    axes.legend(loc="best")


# --- number of shadows -------------------------------------------------------------------------------------------


def curve(axes: Axes, points: Mapping[str, pd.DataFrame], column: str, name: str, *, highlighted: list[str]) -> None:
    """One figure against the number of shadows. points: attack -> table with shadows, column, column_low, _high."""
    sizes = sorted({size for table in points.values() for size in table.shadows})
    for attack in _ordered(points, highlighted):
        table, line = points[attack], _line(attack, highlighted)
        axes.plot(table.shadows, table[column], marker=_marker(attack), ms=3.5, label=attack, **line)
        if attack in highlighted:
            axes.vlines(table.shadows, table[f"{column}_low"], table[f"{column}_high"], color=line["color"], lw=1.3)
    axes.set(xscale="log", xlabel="shadow models", ylabel=name)
    axes.set_xticks(sizes, labels=map(str, sizes), minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.18), ncols=3, columnspacing=1.2, handlelength=2.4)


# --- classes -----------------------------------------------------------------------------------------------------


def classes(axes: Axes, table: pd.DataFrame, baseline: float) -> None:
    """Accuracy of one attack on each class, in the order of the table, with its interval. table: as in classes.csv."""
    y = np.arange(len(table))[::-1]
    axes.hlines(y, table.accuracy_low, table.accuracy_high, color=ACCENT, lw=1.6)
    axes.plot(table.accuracy, y, "o", color=ACCENT, ms=4.5)
    axes.axvline(baseline, color=MUTED, lw=1, ls=(0, (1, 2)))
    axes.set_yticks(y, labels=[short(name) for name in table["class"]], parse_math=False)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="attack accuracy; dotted: guessing", ylim=(-0.7, len(table) - 0.3))
    axes.xaxis.set_major_formatter(PERCENT)


def short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


# --- images ----------------------------------------------------------------------------------------------------


def exposed(axes: Axes, rows: list[list[tuple[np.ndarray, str]]], names: list[str]) -> None:
    """Rows of images, uint8 (C, H, W), with captions under them; names: one a row."""
    most = max(map(len, rows))
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = -number * 1.75
        axes.text(0, top + 0.12, name, fontsize=9, va="bottom")
        for place, (image, caption) in enumerate(row):
            shown = np.atleast_3d(image.transpose(1, 2, 0).squeeze())
            shown = shown if shown.shape[2] == 3 else np.repeat(shown[:, :, :1], 3, axis=2)
            axes.imshow(shown, extent=(place + 0.04, place + 0.96, top - 0.92, top), interpolation="nearest")
            axes.text(place + 0.5, top - 0.97, caption, fontsize=6, ha="center", va="top", parse_math=False)
    axes.set(xlim=(0, most), ylim=(-1.75 * len(rows) + 0.2, 0.45), aspect="equal")
    axes.set_axis_off()


# --- training ----------------------------------------------------------------------------------------------------


def training(axes: Axes, logs: Mapping[str, pd.DataFrame], quantity: str) -> None:
    """Loss or accuracy by epoch: each target a line, the shadows a band from their smallest to their largest.

    logs: model name -> its log, as in result/<run>/train/*.csv."""
    for colour, part, style in ((ACCENT, "train", "-"), (SECOND, "test", "--")):
        column = f"{part}_{quantity}"
        shadows = [log for name, log in logs.items() if name.startswith("shadow")]
        if shadows:
            band = pd.concat(shadows).dropna(subset=column).groupby("epoch")[column].agg(["min", "max"])
            label = f"{part}, shadows"
            axes.fill_between(band.index, band["min"], band["max"], color=colour, alpha=0.2, lw=0, label=label)
        targets = [log.dropna(subset=column) for name, log in logs.items() if name.startswith("target")]
        for number, drawn in enumerate(targets):
            label = "" if number else f"{part}, target" + "s" * (len(targets) > 1)
            marker = "." if part == "test" else None
            axes.plot(drawn["epoch"], drawn[column], color=colour, lw=1.2, ls=style, marker=marker, label=label)
    axes.set(xlabel="epoch", ylabel=quantity)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PERCENT)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
