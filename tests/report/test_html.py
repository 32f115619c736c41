"""The pages: every section has content, every image decodes, every number is that of the tables, all input is text."""

import base64
import dataclasses
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lira.attacks.metrics import clopper_pearson
from lira.errors import CONTROL
from lira.report import figures, headline, html, results
from lira.report.plots import PLOTS
from lira.report.text import audit_lines, exposed_lines
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs
from tests.helpers.html_tree import parse, section, table, text
from tests.helpers.report import FDR, attacked_run, sign, skip_figures, totals, two_runs

FIGURES = ["roc_log", "histogram", "curve", "exposed", "reliability", "classes", "training"]
SECTIONS = ["accuracy", "identified", "epsilon", "attacks", *FIGURES, "threat", "provenance", "reading"]


def page_of(run):
    """The page without its figures, which take long to draw, as a tree; of the tables that are there now."""
    return parse(html.report_page(results.read(sign(run)), {}))


def cells_of(run, attack):
    """The expected row of the table of attacks, from attack.csv."""
    _, _, mean = totals(run, attack)
    cells = [f"{mean.accuracy:.1%}|[{mean.mean_accuracy_low:.1%}, {mean.mean_accuracy_high:.1%}]"]
    cells.append(f"{mean.auc:.3f}|[{mean.mean_auc_low:.3f}, {mean.mean_auc_high:.3f}]")
    for rate in ("0.01", "0.001", "0.0001"):
        key = f"tpr_at_fpr_{rate}"
        mark = "" if mean[f"resolvable_at_{rate}"] == 1 else "†"
        cells.append(f"{mean[key]:.2%}{mark}|[{mean[f'mean_{key}_low']:.2%}, {mean[f'mean_{key}_high']:.2%}]")
    return cells


# --- the page of a real run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(finished):
    return parse((finished.results / "report.html").read_text(encoding="utf-8"))


def test_every_section_is_there_in_order_with_content(real):
    assert [element.get("id") for element in real.iter("section")] == SECTIONS
    assert [plot.name for plot in PLOTS if plot.title] == FIGURES
    for name in SECTIONS:
        assert len(text(section(real, name))) > 60, name


def test_every_image_decodes_and_has_numbers_in_its_alt_text(real):
    images = [*real.iter("img"), *real.iter("source")]
    assert len(list(real.iter("source"))) == 6, "ROC, two histograms, classes, two training curves"
    assert len(list(real.iter("img"))) == 6 + 24
    assert all(re.search(r"\d", element.get("alt", "0")) for element in images)
    for element in images:
        kind, _, content = (element.get("src") or element.get("srcset")).partition(";base64,")
        content = base64.b64decode(content, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert kind == "data:image/png"
            assert np.asarray(Image.open(io.BytesIO(content))).std() > 0


def test_the_page_needs_no_other_file_and_no_script(finished, real):
    source = (finished.results / "report.html").read_text(encoding="utf-8")
    assert "http" not in source.replace("http://www.w3.org", "")
    assert "<script" not in source
    assert "@import" not in source
    for element in real.iter():
        for name in ("src", "srcset", "href"):
            assert element.get(name, "data:").startswith(("data:", "#"))
    assert len(source) < 3_000_000


def test_links_inside_the_page_have_targets(real):
    places = {element.get("id") for element in real.iter() if element.get("id")}
    assert {element.get("href")[1:] for element in real.iter("a")} <= places


def test_the_provenance_of_a_real_run(finished, real):
    provenance = text(section(real, "provenance"))
    config = json.loads((finished.results / "config.json").read_text())
    for value in (config["provenance"]["command"], config["identity"]["data_fingerprint"], "exp_idx 0", "torch 2."):
        assert value in provenance
    seconds = pd.read_csv(finished.results / "models.csv").seconds.sum()
    assert f"{seconds / 3600:.2f} hours for 6 models" in provenance


def test_alt_texts_have_the_numbers_of_the_tables(finished, real):
    run = Run(finished.results, finished.results)
    alts = {name: [img.get("alt") for img in section(real, name).iter("img")] for name in SECTIONS}
    for attack in pd.read_csv(finished.results / "attack.csv").attack.unique():
        assert f" {attack} {totals(run, attack)[2]['tpr_at_fpr_0.01']:.2%}" in alts["roc_log"][0]
    logs = [pd.read_csv(path) for path in (finished.results / "train").glob("target_*.csv")]
    ends = sorted(log.test_accuracy.iloc[-1] for log in logs)
    assert f"targets test {ends[0]:.1%} to {ends[-1]:.1%}" in alts["training"][0]
    strongest = results.read(run).strongest
    classes = pd.read_csv(finished.results / "classes.csv")
    classes = classes[classes.attack == strongest]
    most = classes.loc[classes.accuracy.idxmax()]
    assert f"from {most['class']} {most.accuracy:.1%} to" in alts["classes"][0]


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_accuracy_is_that_of_the_strongest_attack_over_all_targets(tmp_path, n_targets):
    run = attacked_run(tmp_path, inputs(n_targets=n_targets, images=True))
    strongest = pd.read_csv(tmp_path / "attack.csv").groupby("attack").held_out_auc.mean().idxmax()
    n_correct, n_guesses, _ = totals(run, strongest)
    part = section(page_of(run), "accuracy")
    sentence = next(element for element in part.iter("p") if element.get("class") == "accuracy")
    read = results.read(run)
    assert text(sentence) == headline.lines(read)[0]
    assert [text(part) for part in sentence.iter("strong")] == headline.parts(read)[1::2]
    assert f"the highest AUC on the held-out shadows; {n_guesses} guesses" in text(part)
    for line in (*headline.further(read), exposed_lines(read)[0]):
        assert line in text(part)
    leakage = "rejects" if clopper_pearson(n_correct, n_guesses)[0] > 0.5 else "does not reject"
    assert f"An exact test on these {n_guesses} guesses {leakage} guessing: " in text(part)


def test_the_table_of_attacks_is_that_of_attack_csv(tmp_path):
    run = attacked_run(tmp_path, names=None)
    rows = table(section(page_of(run), "attacks"))
    order = pd.read_csv(tmp_path / "attack.csv").attack.unique()
    strongest = results.read(run).strongest
    assert rows[0] == ["attack", "accuracy", "AUC", "TPR at 1 % FPR", "TPR at 0.1 % FPR", "TPR at 0.01 % FPR"]
    for row, attack in zip(rows[1:], order, strict=True):
        assert row == [f"{attack} ★" if attack == strongest else attack, *cells_of(run, attack)]


def test_classes_are_those_of_classes_csv_most_exposed_first(tmp_path):
    run = attacked_run(tmp_path)
    classes = pd.read_csv(tmp_path / "classes.csv")
    classes = classes[classes.attack == results.read(run).strongest]
    classes = classes.sort_values("accuracy", ascending=False, kind="stable")
    rows = table(section(page_of(run), "classes"))
    for cells, (_, row) in zip(rows[1:], classes.iterrows(), strict=True):
        accuracy = f"{row.accuracy:.1%}|[{row.accuracy_low:.1%}, {row.accuracy_high:.1%}]"
        assert cells == [row["class"], accuracy, f"{row.auc:.3f}", str(row.n_guesses)]


def test_the_exposed_members_are_those_of_samples_csv(tmp_path):
    attack_inputs = inputs(images=True)
    run = attacked_run(tmp_path, attack_inputs)
    strongest = results.read(run).strongest
    samples = pd.read_csv(tmp_path / "samples.csv")
    members = samples[(samples.target == "target_00") & samples.member].sort_values(strongest, ascending=False)
    items = [text(item) for item in section(page_of(run), "exposed").iter("li")]
    half = len(items) // 2
    expected = [f"{'abcd'[row.label]}score {getattr(row, strongest):.3g}#{row.sample}" for row in members.itertuples()]
    assert items[:half] == expected[:half]
    assert items[half:] == expected[::-1][:half]
    for item, image in zip(items, section(page_of(run), "exposed").iter("img"), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("src").partition(",")[2]))))
        np.testing.assert_array_equal(pixels, attack_inputs.images[int(item.partition("#")[2]), 0])


def test_what_changes_with_the_share_of_members(tmp_path):
    run = attacked_run(tmp_path, inputs(n_shadows=8, gap=4.0))
    samples = pd.read_csv(tmp_path / "samples.csv")
    members = np.sort(samples[samples.member].p_value)
    rows = table(section(page_of(run), "identified"))[1:]
    assert [row[2:] for row in rows] == [
        ["50.0%", "90.0%", "99.0%"],
        ["10.0%", "50.0%", "91.7%"],
        ["1.0%", "8.3%", "50.0%"],
    ]
    for row, prior in zip(rows, (0.5, 0.1, 0.01), strict=True):
        counts = [k for k, p in enumerate(members, 1) if p <= FDR * (prior * k / len(members) + (1 - prior) * p)]
        assert row[:2] == [f"{prior:.0%}", f"{max(counts, default=0) / len(members):.2%}"]
    assert float(rows[0][1][:-1]) > 20


def test_without_p_values_the_page_says_what_they_take(tmp_path):
    part = section(page_of(attacked_run(tmp_path, inputs(n_shadows=4))), "identified")
    assert text(part).endswith("No sample is listed as exposed: attack_lira.py lists them with 6 shadows or more.")
    assert "no reliability.csv" in text(section(page_of(attacked_run(tmp_path, inputs(n_shadows=4))), "reliability"))


def test_the_audit_is_that_of_audit_csv(tmp_path):
    run = attacked_run(tmp_path)
    columns = (
        "target,kind,attack,epsilon_lower,epsilon_upper,delta,confidence,n_audited,n_guesses,n_correct,epsilon_max"
    )
    rows = ["target_00,one-run,lira,1.234,8.5,1e-05,0.95,40,12,11,2.5", "target_01,one-run,lira,,,0,0.95,40,10,10,"]
    rows.append("pooled,one-run,lira,1.234,8.5,1e-05,0.95,40,12,11,2.5")
    (tmp_path / "audit.csv").write_text("\n".join([columns, *rows]) + "\n")
    part = section(page_of(run), "epsilon")
    lines = [text(line) for line in part.iter("p") if line.get("class") != "note"]
    assert lines == audit_lines(pd.read_csv(tmp_path / "audit.csv"), strongest=results.read(run).strongest)
    assert table(part)[0][-2:] == ["guarantee", "p-value"]
    assert table(part)[1:] == [
        ["target_00", "one-run|lira", "1.23", "2.50", "1e-05", "11 of 12|40 audited", "8.50", "-"],
        ["target_01", "one-run|lira", "-", "-", "0", "10 of 10|40 audited", "-", "-"],
        ["pooled", "one-run|lira", "1.23", "2.50", "1e-05", "11 of 12|40 audited", "8.50", "-"],
    ]


def test_bounds_and_guarantee_lie_on_one_scale(tmp_path):
    run = attacked_run(tmp_path)
    columns = dict(attack="x", delta=1e-5, confidence=0.95, n_audited=40, n_guesses=12, n_correct=11, mu_lower=0.5)
    audit = pd.DataFrame({"target": "target_00", "kind": ["one-run", "f-dp", "canary-one-run", "canary-f-dp"]})
    bounds = dict(epsilon_lower=[0.0, 0.5, 2.0, 4.0], epsilon_max=[4.0, 6.0, 5.0, 10.0])
    run.save_table("audit.csv", audit.assign(**columns, **bounds, epsilon_upper=8.0, p_value=0.5, significance=0.01))
    part = section(page_of(run), "epsilon")
    (scale,) = (element for element in part.iter("div") if element.get("class") == "scale")
    tracks = [
        {element.get("class"): element.get("style") for element in track}
        for track in scale.iter("div")
        if track.get("class", "").startswith("track")
    ]
    places = {"guess": "left:80.0%", "span": "left:{}%;width:{}%", "dot": "left:{}%"}
    expected = [(0.0, 80.0, 80.0), (40.0, 60.0, 40.0), (20.0, 30.0, 20.0), (5.0, 55.0, 5.0), (0.0, 40.0, 0.0)]
    assert tracks == [
        places | {"span": places["span"].format(low, width), "dot": places["dot"].format(dot)}
        for low, width, dot in expected
    ]
    words = [text(element) for element in scale.iter("span")]
    assert words[:6] == ["guarantee", "8.00", "canaries, Gaussian", "4.00", "canaries, any mechanism", "2.00"]
    assert words[-7:-1] == ["0", "2", "4", "6", "8", "10"]
    assert [row[-1] for row in table(part)[1:]] == ["0.5"] * 4


# --- missing files ---------------------------------------------------------------------------------------------


def test_missing_files_are_named(tmp_path):
    run = attacked_run(tmp_path, curve=False, images=False)
    (tmp_path / "audit.csv").unlink()
    tree = page_of(run)
    assert "no audit.csv" in text(section(tree, "epsilon"))
    assert "--curve" in text(section(tree, "curve"))
    assert "no images.npz" in text(section(tree, "exposed"))
    assert "no train/*.csv" in text(section(tree, "training"))
    assert "Given a sample" in text(section(tree, "accuracy"))
    title = text(next(section(tree, "exposed").iter("h2")))
    assert title == "The most and the least exposed samples"
    assert "which of the samples the target was trained on" in text(section(tree, "threat"))
    assert not re.search(r"\bimages?\b", text(section(tree, "threat")))
    (tmp_path / "samples.csv").unlink()
    assert "no samples.csv" in text(section(page_of(run), "roc_log"))


def test_without_an_audit_the_guarantee_is_named(tmp_path):
    private, _ = two_runs(tmp_path)
    (private.results / "audit.csv").unlink()
    assert "By the accountant it is at most 3.40." in text(section(page_of(private), "epsilon"))


def test_an_attack_without_a_threshold_has_no_accuracy(tmp_path):
    run = attacked_run(tmp_path, names=("loss",), curve=False)
    undefined = dict.fromkeys(("threshold", "accuracy", "mean_accuracy_low", "mean_accuracy_high"), np.nan)
    run.save_table("attack.csv", pd.read_csv(tmp_path / "attack.csv").assign(**undefined))
    tree = page_of(run)
    assert "not defined" in text(section(tree, "accuracy"))
    assert table(section(tree, "attacks"))[1][1] == "-"


MARKUP = ('<b>"bold"</b>', "a & b", "it's", "<script>alert(1)</script>")


def test_names_and_paths_are_escaped(tmp_path):
    folder = tmp_path / "a <i>run</i> & \"more\" 'x'"
    attack_inputs = inputs(images=True)
    attack_inputs = dataclasses.replace(attack_inputs, class_names=MARKUP)
    run = attacked_run(folder, attack_inputs)
    sign(run, command="python attack_lira.py --dataset '<u>&amp;'")
    tree = page_of(run)
    assert text(next(tree.iter("h1"))) == folder.name
    assert folder.name in text(next(tree.iter("footer")))
    assert {row[0] for row in table(section(tree, "classes"))[1:]} == set(MARKUP)
    assert "--dataset '<u>&amp;'" in text(section(tree, "provenance"))
    alts = [image.get("alt") for image in section(tree, "exposed").iter("img")]
    assert any(alt.startswith(MARKUP[0]) for alt in alts)
    assert not {"script", "b", "i", "u"} & {element.tag for element in tree.iter()}


def test_control_characters_are_replaced_on_the_page_and_in_figures(tmp_path):
    folder = tmp_path / "run\x1b[2J"
    class_names = ("a\x1b[31m", "\r", "b\x9b", "\u202ec")
    run = attacked_run(folder, dataclasses.replace(inputs(), class_names=class_names))
    sign(run, command="python \udcff\x07")
    read = results.read(run)
    page = html.report_page(read, {})
    assert not CONTROL.search(page)
    assert {"a�[31m", "�", "b�", "�c"} == {row[0] for row in table(section(parse(page), "classes"))[1:]}
    (panel,) = next(plot for plot in PLOTS if plot.name == "classes").panels(read)
    ElementTree.fromstring(figures.svg(panel)[0])  # an SVG with such a character is not drawn


# --- several runs ---------------------------------------------------------------------------------------------------


def test_two_runs_side_by_side(tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    runs = two_runs(tmp_path)
    for run, bounds in zip(runs, ([1.0, 2.0, 3.0] * 2, [4.0, 6.0, np.nan] * 2), strict=True):  # two targets, and pooled
        run.save_table("audit.csv", pd.read_csv(run.results / "audit.csv").assign(epsilon_lower=bounds))
        sign(run)
    path = html.compare(str(tmp_path), ["dp", str(tmp_path / "plain")])
    tree = parse(path.read_text())
    rows = table(section(tree, "runs"))
    assert rows[0][-2:] == ["epsilon at least", "guarantee"]
    for row, run, label in zip(rows[1:], runs, ("A: dp", "B: plain"), strict=True):
        strongest = results.read(run).strongest
        mean = totals(run, strongest)[2]
        assert row[0] == label
        assert row[1:4] == ["65.0%", strongest, cells_of(run, strongest)[0]]
        assert row[4].startswith(f"{mean.auc:.3f}|")
        assert f"{row[3].partition('|')[0]} ({label[0]})" in text(section(tree, "accuracy"))
    assert "; guessing: 50.0%." in text(section(tree, "accuracy"))
    assert [row[-2:] for row in rows[1:]] == [["3.00", "3.40"], ["-", "-"]]
    settings = {row[0]: row[1:] for row in table(section(tree, "settings"))[1:]}
    assert settings == {"privacy": ["DP-SGD, noise multiplier 1.0, clipping norm 0.1", "without differential privacy"]}


def test_equal_names_are_two_runs_and_equal_folders_are_one(tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    two_runs(tmp_path / "first")
    two_runs(tmp_path / "second")
    first, second, third = (str(tmp_path / path) for path in ("first/plain", "second/plain", "second/dp"))
    path = html.compare(str(tmp_path), [first, f"{first}/../plain", second])
    tree = parse(path.read_text())
    assert len(table(section(tree, "runs"))) == 3
    assert first in text(tree)
    assert second in text(tree)
    assert path != html.compare(str(tmp_path), [first, third])


def test_another_number_of_shadows_is_a_difference(tmp_path, monkeypatch):
    skip_figures(monkeypatch)
    plain = two_runs(tmp_path)[1]
    attack = pd.read_csv(plain.results / "attack.csv")
    plain.save_table("attack.csv", attack.assign(shadows=16))
    sign(plain)
    tree = parse(html.compare(str(tmp_path), ["dp", "plain"]).read_text())
    settings = {row[0]: row[1:] for row in table(section(tree, "settings"))[1:]}
    assert settings["shadows"] == [str(attack.shadows.iloc[0]), "16"]
