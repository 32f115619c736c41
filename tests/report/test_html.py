"""The page: every section has content, every image decodes, every figure is that of the tables, all input is text."""

import base64
import io
import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lira.attacks.metrics import clopper_pearson
from lira.attacks.run import run_attacks
from lira.report import html, results
from lira.storage.runs import Run
from tests.helpers.attack_inputs import inputs
from tests.helpers.html_tree import parse, section, table, text

SECTIONS = ["answer", "epsilon", "attacks", "roc", "histogram", "curve", "exposed", "classes", "training", "threat"]
SECTIONS += ["made", "reading"]


def attacked(folder, given=None, *, names=("lira", "loss"), curve=True, images=True):
    """The tables of an attack on random scores, written as attack_lira.py writes them. Returns the Run."""
    given = given or inputs(n_targets=2, n_shadows=6, images=images)
    run = Run(folder, folder)
    made = run_attacks(given, names=names, convention="lira", with_leave_one_out=False, with_curve=curve, quiet=True)
    for name, content in made.items():
        run.save_table(name, content)
    if given.images is not None:
        run.save_arrays("images.npz", results.exposed_images(made, given.images))
    return run


def shown(run):
    """The page without its figures, which take long to draw, as a tree."""
    return parse(html.report_page(results.read(run), {}))


def summary(run, attack):
    """(n_correct n_guesses, n_guesses) of all targets, and the mean over targets of every column, from attack.csv."""
    rows = pd.read_csv(run.results / "attack.csv")
    rows = rows[rows.attack == attack]
    n_guesses = rows.n_members + rows.n_nonmembers
    return round((rows.accuracy * n_guesses).sum()), int(n_guesses.sum()), rows.mean(numeric_only=True)


def cells_of(run, attack):
    """What the table of attacks should say, written here anew from attack.csv."""
    n_correct, n_guesses, mean = summary(run, attack)
    low, high = clopper_pearson(n_correct, n_guesses)
    cells = [f"{n_correct / n_guesses:.1%}|[{low:.1%}, {high:.1%}]"]
    cells.append(f"{mean.auc:.3f}|[{mean.auc_low:.3f}, {mean.auc_high:.3f}]")
    for rate in ("0.01", "0.001", "0.0001"):
        key = f"tpr_at_fpr_{rate}"
        mark = "" if mean[f"resolvable_at_{rate}"] == 1 else "†"
        cells.append(f"{mean[key]:.2%}{mark}|[{mean[f'{key}_low']:.2%}, {mean[f'{key}_high']:.2%}]")
    return cells


# --- the page of a real run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(finished):
    return parse((finished.results / "report.html").read_text(encoding="utf-8"))


def test_every_section_is_there_in_order_and_says_something(real):
    found = [element.get("id") for element in real.iter("section")]
    assert found == SECTIONS
    for name in SECTIONS:
        assert len(text(section(real, name))) > 60, name


def test_every_image_decodes_in_light_and_in_dark(real):
    images = [*real.iter("img"), *real.iter("source")]
    assert len(list(real.iter("source"))) == 6, "ROC, two histograms, classes, two training curves"
    assert len(list(real.iter("img"))) == 6 + 24
    for element in images:
        kind, _, content = (element.get("src") or element.get("srcset")).partition(";base64,")
        content = base64.b64decode(content, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert kind == "data:image/png"
            assert np.asarray(Image.open(io.BytesIO(content))).std() > 0


def test_every_image_has_words_and_the_words_have_numbers(real):
    for element in real.iter("img"):
        assert any(letter.isdigit() for letter in element.get("alt")), element.get("alt")


def test_the_page_needs_no_other_file_and_no_script(finished, real):
    source = (finished.results / "report.html").read_text(encoding="utf-8")
    assert "http" not in source.replace("http://www.w3.org", "")
    assert "<script" not in source
    assert "@import" not in source
    for element in real.iter():
        for name in ("src", "srcset", "href"):
            assert element.get(name, "data:").startswith(("data:", "#"))
    assert len(source) < 3_000_000


def test_links_inside_the_page_lead_somewhere(real):
    places = {element.get("id") for element in real.iter() if element.get("id")}
    assert {element.get("href")[1:] for element in real.iter("a")} <= places


def test_a_real_run_says_how_it_was_made(finished, real):
    said = text(section(real, "made"))
    config = json.loads((finished.results / "config.json").read_text())
    for value in (config["provenance"]["command"], config["identity"]["data_fingerprint"], "exp_idx 0", "torch 2."):
        assert value in said
    seconds = pd.read_csv(finished.results / "models.csv").seconds.sum()
    assert f"{seconds / 3600:.2f} hours for 6 models" in said


def test_alt_texts_of_a_real_run_are_the_figures_of_its_tables(finished, real):
    run = Run(finished.results, finished.results)
    alts = {name: [img.get("alt") for img in section(real, name).iter("img")] for name in SECTIONS}
    for attack in pd.read_csv(finished.results / "attack.csv").attack.unique():
        assert f" {attack} {summary(run, attack)[2]['tpr_at_fpr_0.01']:.2%}" in alts["roc"][0]
    logs = [pd.read_csv(path) for path in (finished.results / "train").glob("target_*.csv")]
    ends = sorted(log.test_accuracy.iloc[-1] for log in logs)
    assert f"targets test {ends[0]:.1%} to {ends[-1]:.1%}" in alts["training"][0]
    strongest = results.read(run).strongest
    classes = pd.read_csv(finished.results / "classes.csv")
    own = classes[classes.attack == strongest]
    assert f"from {own.loc[own.accuracy.idxmax(), 'class']} {own.accuracy.max():.1%} to" in alts["classes"][0]


# --- figures are those of the tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_targets", [1, 3])
def test_the_answer_is_the_strongest_attack_over_all_targets(tmp_path, n_targets):
    run = attacked(tmp_path, inputs(n_targets=n_targets, images=True))
    own = pd.read_csv(tmp_path / "attack.csv").groupby("attack").held_out_auc.mean()
    n_correct, n_guesses, _ = summary(run, own.idxmax())
    low, high = clopper_pearson(n_correct, n_guesses)
    tree = shown(run)
    answer = next(element for element in tree.iter("p") if element.get("class") == "answer")
    share = f"{n_correct / n_guesses:.1%} [{low:.1%}, {high:.1%}]"
    assert text(answer) == f"Given a image, the attack is right in {share} of cases; 50% is guessing."
    assert (
        f"“{own.idxmax()}”, the one that the shadows’ own held-out scores call strongest; {n_guesses} guesses"
        in text(section(tree, "answer"))
    )
    if own.idxmax() != "lira":
        assert f"“lira”, is right in {cells_of(run, 'lira')[0].replace('|', ' ')}" in text(section(tree, "answer"))


def test_the_table_of_attacks_is_that_of_attack_csv(tmp_path):
    run = attacked(tmp_path, names=None)
    rows = table(section(shown(run), "attacks"))
    order = pd.read_csv(tmp_path / "attack.csv").attack.unique()
    strongest = results.read(run).strongest
    assert rows[0] == ["attack", "accuracy", "AUC", "TPR at 1 % FPR", "at 0.1 %", "at 0.01 %"]
    for row, attack in zip(rows[1:], order, strict=True):
        assert row == [attack + " ★" * (attack == strongest), *cells_of(run, attack)]


def test_classes_are_those_of_classes_csv_most_exposed_first(tmp_path):
    run = attacked(tmp_path)
    own = pd.read_csv(tmp_path / "classes.csv")
    own = own[own.attack == results.read(run).strongest].sort_values("accuracy", ascending=False, kind="stable")
    rows = table(section(shown(run), "classes"))
    for row, one in zip(rows[1:], own.itertuples(), strict=True):
        accuracy = f"{one.accuracy:.1%}|[{one.accuracy_low:.1%}, {one.accuracy_high:.1%}]"
        assert row == [one._2, accuracy, f"{one.auc:.3f}", str(one.n_guesses)]


def test_the_exposed_are_those_of_samples_csv(tmp_path):
    given = inputs(images=True)
    run = attacked(tmp_path, given)
    strongest = results.read(run).strongest
    samples = pd.read_csv(tmp_path / "samples.csv")
    own = samples[(samples.target == "target_00") & samples.member].sort_values(strongest, ascending=False)
    items = [text(item) for item in section(shown(run), "exposed").iter("li")]
    half = len(items) // 2
    expected = [f"{'abcd'[row.label]}score {getattr(row, strongest):.3g}#{row.sample}" for row in own.itertuples()]
    assert items[:half] == expected[:half]
    assert items[half:] == expected[::-1][:half]
    for item, image in zip(items, section(shown(run), "exposed").iter("img"), strict=True):
        shade = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("src").partition(",")[2]))))
        np.testing.assert_array_equal(shade, given.images[int(item.partition("#")[2]), 0])


AUDIT = "target,attack,inclusion,epsilon_lower,epsilon_upper,delta,confidence,audited,n_guesses,n_correct,threshold_low,threshold_high\n"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["target_00,lira,coin,1.234,8.5,1e-05,0.95,40,12,11,-1,2"],
         ["At 95% confidence the epsilon of this training is at least 1.23.", "at most 8.50 at delta 1e-05"]),
        (["target_00,lira,coin,0.5,,0,0.95,40,12,9,-1,2", "target_01,lira,coin,1.5,,0,0.95,40,10,10,-1,2"],
         ["at least 1.00, the median over 2 targets", "not all of them together", "promises no upper bound"]),
        (["target_00,lira,coin,0,2,1e-05,0.95,40,12,6,-1,2"], ["at least 0.00", "no proof of none"]),
        (["target_00,lira,coin,3,2,1e-05,0.95,40,12,12,-1,2"],
         ["Violation: target_00 shows epsilon 3.00 or more, above the promised 2.00"]),
        (["target_00,lira,half,,2,1e-05,0.95,40,12,12,-1,2"], ["No verdict", "were not drawn"]),
    ],
)  # fmt: skip
def test_the_verdict_on_epsilon(tmp_path, rows, words):
    run = attacked(tmp_path)
    (tmp_path / "audit.csv").write_text(AUDIT + "\n".join(rows) + "\n")
    part = section(shown(run), "epsilon")
    for word in words:
        assert word in text(part)
    for cells, row in zip(table(part)[1:], rows, strict=True):
        target, attack, _, lower, upper, delta, _, audited, n_guesses, n_correct, *_ = row.split(",")
        bounds = [f"{float(value):.2f}" if value else "-" for value in (lower, upper)]
        assert cells == [target, attack, *bounds, delta, f"{n_correct} of {n_guesses}|{audited} audited"]


# --- what is not there ---------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(tmp_path):
    run = attacked(tmp_path, curve=False, images=False)
    (tmp_path / "audit.csv").unlink()
    tree = shown(run)
    assert "no audit.csv" in text(section(tree, "epsilon"))
    assert "--curve" in text(section(tree, "curve"))
    assert "No images" in text(section(tree, "exposed"))
    assert "no train/*.csv" in text(section(tree, "training"))
    assert "Given a sample" in text(section(tree, "answer"))
    (tmp_path / "samples.csv").unlink()
    assert "no samples.csv" in text(section(shown(run), "roc"))


def test_an_attack_without_a_threshold_gives_no_figure(tmp_path):
    run = attacked(tmp_path, names=("loss",), curve=False)
    unknown = dict.fromkeys(("threshold", "accuracy", "accuracy_low", "accuracy_high"), np.nan)
    run.save_table("attack.csv", pd.read_csv(tmp_path / "attack.csv").assign(**unknown))
    tree = shown(run)
    assert "cannot be said" in text(section(tree, "answer"))
    assert table(section(tree, "attacks"))[1][1] == "-"


def test_guessing_is_the_larger_share_where_members_are_not_half(tmp_path):
    given = inputs(n_targets=1)
    given.member[0] = np.arange(given.member.shape[1]) < 24
    assert "; 60% is guessing" in text(section(shown(attacked(tmp_path, given)), "answer"))


# --- names with markup ---------------------------------------------------------------------------------------------

NASTY = ('<b>"bold"</b>', "a & b", "it's", "<script>alert(1)</script>")


def test_names_and_paths_come_out_as_text(tmp_path):
    folder = tmp_path / "a <i>run</i> & \"more\" 'x'"
    given = inputs(images=True)
    given = given.__class__(**{**vars(given), "class_names": NASTY})
    run = attacked(folder, given)
    run.save_json("attack.json", {"command": "python attack_lira.py --dataset '<u>&amp;'"})
    tree = shown(run)
    assert text(next(tree.iter("h1"))) == folder.name
    assert folder.name in text(next(tree.iter("footer")))
    assert {row[0] for row in table(section(tree, "classes"))[1:]} == set(NASTY)
    assert "--dataset '<u>&amp;'" in text(section(tree, "made"))
    alts = [image.get("alt") for image in section(tree, "exposed").iter("img")]
    assert any(alt.startswith(NASTY[0]) for alt in alts)
    assert not {"script", "b", "i", "u"} & {element.tag for element in tree.iter()}
