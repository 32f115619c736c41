"""How figures are drawn: style, files, and one function for each kind of panel. It computes no statistics.

A figure is one or more panels. Together they are the PNG and PDF for papers; each panel alone is an SVG of the page, as
wide as a phone. The SVG is drawn once, in light colours; the dark version is the same text with other colours."""

import io
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

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
from matplotlib.transforms import ScaledTranslation

from lira.attacks.registry import ATTACKS

# Light colour -> dark colour. First text, secondary text and grid. Then Okabe and Ito's palette, its yellow, grey and
# black replaced by two of Tol's and a dark grey: distinguishable for the colour-blind, and in print. Then a grey for
# each attack, and one for any other.
INK, MUTED, GRID = "#1c1e21", "#5d636a", "#dddad2"
DARK = {
    INK: "#e9e7e2", MUTED: "#9aa0a6", GRID: "#33363a",
    "#0072b2": "#5cb3ea", "#d55e00": "#f58b4c", "#009e73": "#2fc79a", "#cc79a7": "#e3a1c5", "#e69f00": "#f2b83a",
    "#56b4e9": "#a5dbf8", "#4d4d4d": "#c8c8c8", "#882255": "#d67ba6", "#999933": "#c4c45f",
}  # fmt: skip
COLOURS = tuple(DARK)[3:]
_SHADES = np.linspace(103, 163, len(ATTACKS) + 1).astype(int).tolist()
GREYS = tuple("#" + 3 * f"{shade:02x}" for shade in _SHADES)
DARK |= dict(zip(GREYS, reversed(["#" + 3 * f"{shade + 4:02x}" for shade in _SHADES]), strict=True))
ACCENT, SECOND = COLOURS[:2]
STYLES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))
TAIL = 0.025  # of the scores, on either side of a histogram
MARKERS = dict(zip(ATTACKS, cycle("osD^vPX<>*p"), strict=False))
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.5g}%")
_FONTS = ("Noto Sans CJK JP", "Hiragino Sans", "Yu Gothic", "Noto Sans", "Arial Unicode MS")  # for class names
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
    """draw(axes); alt: what it shows, in words and numbers; size: (width, height) in inches; is_legend: of
    the panels before it."""

    draw: Callable[[Axes], None]
    alt: str
    size: tuple[float, float] = (4.6, 3.2)
    is_legend: bool = False


def paper(panels: list[Panel], *, title: str, columns: int = 2) -> dict[str, bytes]:
    """The panels as one figure: suffix (".png", ".pdf") -> bytes. Without a date: equal figures are equal bytes."""
    with _style():
        columns, width = min(columns, len(panels)), panels[0].size[0]
        heights = [
            max(panel.size[1] for panel in panels[start : start + columns]) for start in range(0, len(panels), columns)
        ]
        figure = Figure(figsize=(width * columns, sum(heights) + 0.3), dpi=150, layout="constrained")
        cells = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel()
        for axes, panel in zip(cells, panels, strict=False):
            panel.draw(axes)
        for axes in cells[len(panels) :]:
            axes.set_axis_off()
        figure.suptitle(title, fontsize=8, color=MUTED, parse_math=False)
        _fix_layout(figure)
        return {
            ".png": _bytes(FigureCanvasAgg(figure).print_png, metadata={"Software": None}),
            ".pdf": _bytes(FigureCanvasPdf(figure).print_pdf, metadata=dict.fromkeys(_PDF_FIELDS)),
        }


def svg(panel: Panel) -> tuple[str, str]:
    """One panel for the page: (light, dark)."""
    with _style():
        figure = Figure(figsize=panel.size, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        panel.draw(axes)
        _fix_layout(figure)
        light = _bytes(FigureCanvasSVG(figure).print_svg, metadata=dict.fromkeys(_SVG_FIELDS)).decode()
    light = light[light.index("<svg") :]
    return light, re.sub("|".join(DARK), lambda colour: DARK[colour[0]], light)


@contextmanager
def _style() -> Iterator[None]:
    """The style of all figures, with further fonts for class names in letters that the first font lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in _FONTS if name in installed)]
    with mpl.rc_context(_STYLE | {"font.family": family}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box; the page has the name as text
        yield


def _fix_layout(figure: Figure) -> None:
    """Compute the layout once for all files; the canvas writes them, since savefig() would draw each figure twice."""
    engine: Any = figure.get_layout_engine()
    engine.execute(figure)
    figure.set_layout_engine("none")


def _bytes(write: Callable[..., Any], **options: Any) -> bytes:
    file = io.BytesIO()
    write(file, **options)
    return file.getvalue()


def _line(attack: str, labelled: Sequence[str]) -> dict[str, Any]:
    """Colour, style and weight of an attack: the same in every figure; those that are not labelled grey and thin."""
    if attack in labelled:
        place = labelled.index(attack)
        colour, style = COLOURS[place % len(COLOURS)], STYLES[place % len(STYLES)]
        return {"color": colour, "ls": style, "lw": 2.0, "zorder": 3 + 1 / (1 + place)}
    place = list(ATTACKS).index(attack) if attack in ATTACKS else len(ATTACKS)
    shade = GREYS[5 * place % len(GREYS)]  # those next to each other, and those of one style, differ most
    return {"color": shade, "ls": STYLES[place % len(STYLES)], "lw": 0.9, "zorder": 2}


def _ordered(names: Iterable[str], labelled: Sequence[str]) -> list[str]:
    """The labelled ones first: in the legend too."""
    return sorted(names, key=lambda name: labelled.index(name) if name in labelled else len(labelled))


def _legends(axes: Axes, *, labelled_below: bool = False) -> None:
    """The legend of the labelled lines, in the corner or below the axes, and in small print below that of the grey."""
    handles: list[Any] = axes.get_legend_handles_labels()[0]
    figure: Any = axes.figure
    inches = ScaledTranslation(0, -0.46, figure.dpi_scale_trans)  # ticks and label of the axis
    below: dict[str, Any] = dict(loc="upper center", bbox_to_anchor=(0.46, 0), bbox_transform=axes.transAxes + inches)
    labelled = below if labelled_below else dict(loc="lower right")
    for grey, how in ((False, labelled), (True, below | dict(ncols=3, fontsize=7.5, labelcolor=MUTED))):
        shown = [handle for handle in handles if (handle.get_color() in GREYS) == grey]
        if shown:
            how |= dict(handlelength=2.6, columnspacing=1.2, borderaxespad=0.3)
            if axes.legend_ is not None:  # the next one would replace it
                axes.add_artist(axes.legend_)
            axes.legend(handles=shown, **how)


def roc(
    axes: Axes,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    intervals: Mapping[str, list[tuple[float, ...]]],
    *,
    labelled: Sequence[str],
    min_rate: float | None = None,
    legend_below: bool = False,
) -> None:
    """The ROC of every attack.

    curves: name -> (fpr, tpr); intervals: name -> (fpr, tpr, tpr_low, tpr_high) of some points, NaN ends: none;
    labelled: drawn in colours; min_rate: start of logarithmic axes, None for linear ones; legend_below: of labels too
    long for the corner below guessing."""
    low, high = (min_rate, min_rate**-0.01) if min_rate else (0.0, 1.01)  # room for half the width of a line
    labelled = [name for name in labelled if name in curves]
    for attack in _ordered(curves, labelled):
        fpr, tpr = curves[attack]
        line = _line(attack, labelled)
        label = attack.replace("$", r"\$")
        axes.plot(np.append(fpr, 1), np.append(tpr, 1), label=label, drawstyle="steps-post", **line)
        for x, y, y_low, y_high in intervals.get(attack, []):
            if y >= low and y_high > y_low:
                style: dict[str, Any] = dict(color=line["color"], lw=1.3, zorder=5, clip_on=False)
                axes.plot([x, x], [max(y_low, low), y_high], **style, solid_capstyle="butt")
                axes.plot([x], [y], MARKERS.get(attack, "o"), ms=4, **style)
    axes.plot([low, 1], [low, 1], color=MUTED, lw=1, ls=(0, (1, 2)), label="guessing")
    if min_rate:
        axes.set(xscale="log", yscale="log")
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="false positive rate", ylabel="true positive rate")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT)
    axes.set_aspect("equal")
    axes.minorticks_off()
    _legends(axes, labelled_below=legend_below)


def histogram(
    axes: Axes,
    attack: str,
    members: np.ndarray,
    nonmembers: np.ndarray,
    thresholds: Collection[float],
    *,
    with_legend: bool = True,
) -> None:
    """The scores of one attack, those of all targets together, with the threshold of each target.

    The outermost TAIL on either side are counted in the outermost bins: one extreme sample would flatten the rest."""
    axes.set_title(attack)
    scores = np.concatenate([members, nonmembers])
    if not len(scores):
        axes.set_title(f"{attack}: no scores")
        return
    low, high = np.quantile(scores, [TAIL, 1 - TAIL])
    bins = np.linspace(low, high if high > low else low + 1, 61)
    for name, values, colour, style in (("non-members", nonmembers, SECOND, "--"), ("members", members, ACCENT, "-")):
        heights = np.histogram(np.clip(values, low, high), bins)[0]
        axes.stairs(heights, bins, fill=True, color=colour, alpha=0.35, lw=0)
        axes.stairs(heights, bins, color=colour, lw=1.4, ls=style, label=name)
    visible = sorted({threshold for threshold in thresholds if bins[0] <= threshold <= bins[-1]})
    for number, threshold in enumerate(visible):
        axes.axvline(threshold, color=INK, lw=0.9, ls=":", label="" if number else "threshold")
    defined = [threshold for threshold in thresholds if not np.isnan(threshold)]
    if defined and not visible:
        axes.set_title(f"{attack} (threshold {defined[0]:.3g})")
    axes.set(xlim=(bins[0], bins[-1]), xlabel="score: higher = more likely a member", ylabel="samples")
    axes.set_ylim(0, 1.14 * axes.dataLim.ymax)  # room for the legend
    if with_legend:
        axes.legend(loc="upper center", ncols=3, columnspacing=1.2, borderaxespad=0.2)


def curve(axes: Axes, points: Mapping[str, pd.DataFrame], column: str, name: str, *, labelled: Sequence[str]) -> None:
    """A metric against the number of shadows; curve_legend() is its legend.

    points: attack -> table with the columns shadows, `column`, `column`_low and `column`_high; name: of the metric."""
    sizes = sorted({size for table in points.values() for size in table.shadows})
    for attack in _ordered(points, labelled):
        table, line = points[attack], _line(attack, labelled)
        axes.plot(table.shadows, table[column], marker=MARKERS.get(attack, "o"), ms=3.5, label=attack, **line)
        if attack in labelled:
            axes.vlines(table.shadows, table[f"{column}_low"], table[f"{column}_high"], color=line["color"], lw=1.3)
    axes.set(xscale="log", xlabel="shadow models", ylabel=name)
    axes.set_xticks(sizes, labels=map(str, sizes), minor=False)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PERCENT)


def curve_legend(axes: Axes, attacks: Collection[str], *, labelled: Sequence[str]) -> None:
    """The one legend of all panels of curve()."""
    for attack in _ordered(attacks, labelled):
        axes.plot([], [], marker=MARKERS.get(attack, "o"), ms=3.5, label=attack, **_line(attack, labelled))
    axes.set_axis_off()
    axes.legend(loc="center left", ncols=3, columnspacing=1.2, handlelength=2.6, borderaxespad=0)


def reliability(axes: Axes, curves: Mapping[str, pd.DataFrame], errors: Mapping[str, float]) -> None:
    """The share of members against p_member. curves: name -> reliability_bins(); errors: name -> its ECE."""
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (1, 2)))
    for (name, bins), colour, style, marker in zip(curves.items(), COLOURS, STYLES, "os", strict=False):
        label = f"{name}, ECE {errors[name]:.3f}"
        axes.plot(
            bins.p_member, bins.share, color=colour, ls=style, marker=marker, ms=3.5, lw=1.4, label=label, clip_on=False
        )
        axes.vlines(bins.p_member, bins.share_low, bins.share_high, color=colour, lw=1.3, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="p_member", ylabel="share of members")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT)
    axes.set_aspect("equal")
    _legends(axes, labelled_below=True)


def classes(axes: Axes, table: pd.DataFrame, *, guessing: float, overall: float, n_left_out: int = 0) -> None:
    """Accuracy of one attack on each class, in the order of the table, with its interval.

    table: rows of classes.csv; guessing: accuracy of guessing; overall: of all classes together; n_left_out: classes
    between the first and the second half of the table, where the axis has a break."""
    y = np.arange(len(table))[::-1] + np.where(np.arange(len(table)) < len(table) // 2, 2 * bool(n_left_out), 0)
    axes.hlines(y, table.accuracy_low, table.accuracy_high, color=ACCENT, lw=1.6)
    axes.plot(table.accuracy, y, "o", color=ACCENT, ms=4.5)
    axes.axvline(guessing, color=MUTED, lw=1, ls=(0, (1, 2)))
    axes.axvline(overall, color=MUTED, lw=1, ls=(0, (5, 2)))
    if n_left_out:
        middle = len(table) // 2 + 0.5
        axes.axhspan(middle - 0.75, middle + 0.75, color=GRID, lw=0, zorder=3)  # over the vertical lines
        centred: dict[str, Any] = dict(ha="center", va="center", color=INK, fontsize=8.5, zorder=4)
        axes.text(0.5, middle, f"{n_left_out} classes between", transform=axes.get_yaxis_transform(), **centred)
    axes.set_yticks(y, labels=[shorten(name) for name in table["class"]], parse_math=False)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="attack accuracy\n(dotted: guessing, dashed: all classes)", ylim=(-0.7, y[0] + 0.7))
    axes.xaxis.set_major_formatter(PERCENT)


def shorten(name: str, max_length: int = 22) -> str:
    return name if len(name) <= max_length else name[: max_length - 1] + "…"


def exposed(axes: Axes, rows: Sequence[Sequence[tuple[np.ndarray, str]]], titles: Sequence[str]) -> None:
    """Rows of (image, caption), each under its title. Images: uint8 (C, H, W)."""
    for number, (row, title) in enumerate(zip(rows, titles, strict=True)):
        top = -number * 1.75
        axes.text(0, top + 0.12, title, fontsize=9, va="bottom")
        for place, (image, caption) in enumerate(row):
            rgb = np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))  # grey: three equal channels
            axes.imshow(rgb, extent=(place + 0.04, place + 0.96, top - 0.92, top), interpolation="nearest")
            axes.text(place + 0.5, top - 0.97, caption, fontsize=6, ha="center", va="top", parse_math=False)
    axes.set(xlim=(0, max(map(len, rows))), ylim=(-1.75 * len(rows) + 0.2, 0.45), aspect="equal")
    axes.set_axis_off()


def training(axes: Axes, logs: Mapping[str, pd.DataFrame], quantity: str, *, with_legend: bool = True) -> None:
    """Loss or accuracy by epoch: each target as a line, the shadows as a band from their minimum to their maximum.

    logs: model name -> its log, as in result/<run>/train/*.csv."""
    shadows = [log for name, log in logs.items() if name.startswith("shadow")]
    targets = [log for name, log in logs.items() if name.startswith("target")]
    for colour, part, style, marker in ((ACCENT, "train", "-", None), (SECOND, "test", "--", ".")):
        column = f"{part}_{quantity}"
        if shadows:
            band = pd.concat(shadows).dropna(subset=column).groupby("epoch")[column].agg(["min", "max"])
            label = f"{part}, shadows"
            axes.fill_between(band.index, band["min"], band["max"], color=colour, alpha=0.2, lw=0, label=label)
        label = f"{part}, targets" if len(targets) > 1 else f"{part}, target"
        for log in targets:
            rows = log.dropna(subset=column)
            axes.plot(rows["epoch"], rows[column], color=colour, lw=1.2, ls=style, marker=marker, label=label)
            label = ""  # one entry in the legend for all targets
    axes.set(xlabel="epoch", ylabel=quantity)
    axes.locator_params(axis="x", integer=True)
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PERCENT)
    if with_legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
