"""config.json: written once, compared field by field, found by the name of a run; the models beside it."""

import json

import pytest

from lira.storage.config import FORMAT, find_run, n_on_disk
from lira.storage.names import model_name
from lira.storage.runs import open_run
from tests.helpers.errors import input_error_line
from tests.helpers.runs import IDENTITY, RECORDED

NAME = "digits_ConvNet_MSGD_lr0.05_b256_e40_bf16_exp0"


@pytest.fixture
def folders(tmp_path):
    """--model-dir and --result-dir."""
    return str(tmp_path / "model"), str(tmp_path / "result")


def test_config_is_written_once_and_never_changed(run, folders):
    path = run.models / "config.json"
    content = path.read_bytes()
    assert json.loads(content) == {"format": FORMAT, "identity": IDENTITY, **RECORDED}
    again = open_run(*folders, IDENTITY, record={"provenance": {"command": "other"}})
    assert (again.models, again.results) == (run.models, run.results)
    assert path.read_bytes() == content == (run.results / "config.json").read_bytes()


def test_without_a_record_nothing_is_created(tmp_path, folders):
    run = open_run(*folders, IDENTITY)
    assert not run.has_weights("target", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", [None, {}])
@pytest.mark.parametrize(
    ("field", "value"),
    [("lr_step", 5), ("target_inclusion", "coin"), ("lr", 0.05000001), ("n_train", 477), ("something_new", 1)],
)  # fmt: skip
def test_other_settings_are_named(run, folders, field, value, record):
    before = (run.models / "config.json").read_bytes()
    line = input_error_line(open_run, *folders, IDENTITY | {field: value}, name=run.name, record=record)
    assert f"{field} = {IDENTITY.get(field)!r}" in line
    assert f"these flags and data give {value!r}" in line
    assert (run.models / "config.json").read_bytes() == before


def test_other_data_of_the_same_name_are_named_without_digests(run, folders):
    line = input_error_line(open_run, *folders, IDENTITY | {"data_fingerprint": "e" * 64}, name=run.name)
    assert f"config.json was made with other data called {IDENTITY['dataset']}: their images or labels differ" in line
    assert "eeee" not in line
    assert "ffff" not in line


def test_results_of_other_settings_are_not_overwritten(run, folders, tmp_path):
    """Only --model-dir differs: the results would replace those of the first run."""
    line = input_error_line(open_run, str(tmp_path / "other"), folders[1], IDENTITY | {"lr_step": 3}, record={})
    assert "/result/" in line
    assert "config.json was made with lr_step" in line


@pytest.mark.parametrize("folder", ["models", "results"])
@pytest.mark.parametrize(("config", "number"), [({}, 1), ({"format": 1}, 1), ({"format": FORMAT + 1}, FORMAT + 1)])
def test_a_run_of_another_format_is_rejected(run, folders, folder, config, number):
    path = getattr(run, folder) / "config.json"
    path.write_text(json.dumps({**config, "identity": IDENTITY, "provenance": {}}))
    before = path.read_bytes()
    message = f"{path} has format {number}, this version reads format {FORMAT}: "
    assert input_error_line(open_run, *folders, IDENTITY).startswith(message)
    assert input_error_line(open_run, *folders, IDENTITY, record={}).startswith(message)
    assert input_error_line(find_run, str(path.parent), *folders).startswith(message)
    assert path.read_bytes() == before


# --- --run ---------------------------------------------------------------------------------------------------------


def found(text, folders):
    """(models, results) of find_run() as absolute paths, with the config.json that it returns checked."""
    models, results, config = find_run(text, *folders)
    assert config == {"format": FORMAT, "identity": IDENTITY, **RECORDED}
    assert models.name == results.name  # open_run() is called with one name for both
    return models.absolute(), results.absolute()


def test_a_run_is_found_by_its_name_and_by_the_path_of_either_folder(run, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (NAME, str(run.models), f"{run.results}/", f"model/{NAME}", f"result/../result/{NAME}"):
        for parents in (folders, ("model", "result")):
            assert found(text, parents) == (run.models, run.results), text
    for folder in (run.models, run.results):
        monkeypatch.chdir(folder)
        assert found(".", folders) == (run.models, run.results)


@pytest.mark.parametrize("folder", ["models", "results"])
def test_one_of_the_two_folders_is_enough(run, folders, folder):
    """The weights were deleted, or the results not yet copied."""
    (getattr(run, folder) / "config.json").unlink()
    for text in (NAME, str(run.results if folder == "models" else run.models)):
        assert found(text, folders) == (run.models, run.results)


def test_a_renamed_run_is_found_by_its_new_name(run, folders, tmp_path):
    renamed = tmp_path / "model" / "best", tmp_path / "result" / "best"
    for old, new in zip((run.models, run.results), renamed, strict=True):
        old.rename(new)
    for text in ("best", *map(str, renamed)):
        assert found(text, folders) == renamed
    opened = open_run(*folders, IDENTITY, name="best")
    assert (opened.models, opened.results) == renamed


def test_a_moved_folder_is_that_of_the_weights_if_it_holds_some(run, folders, tmp_path):
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    run.results.rename(moved)
    assert found(str(moved), folders) == (tmp_path / "model" / "moved", moved)
    (moved / "target_00.pt").touch()
    assert found(str(moved), folders) == (moved, tmp_path / "result" / "moved")


def test_a_link_to_the_weights_is_a_name_of_its_own(run, folders, tmp_path):
    run.models.rename(tmp_path / "on another disk")
    (tmp_path / "model" / "best").symlink_to(tmp_path / "on another disk")
    assert found("best", folders) == (tmp_path / "model" / "best", tmp_path / "result" / "best")


def test_the_name_of_a_run_goes_before_a_path(run, folders, tmp_path, monkeypatch):
    """A folder of the same name in the current directory is another run."""
    open_run(str(tmp_path / "here"), str(tmp_path), IDENTITY | {"lr_step": 5}, record={})
    monkeypatch.chdir(tmp_path)
    assert found(NAME, folders) == (run.models, run.results)


def test_an_unknown_run_is_named_with_the_nearest(run, folders, tmp_path):
    open_run(*folders, IDENTITY | {"dataset": "mnist", "optimizer": "adam", "exp_idx": 7}, record={})
    (tmp_path / "model" / "empty").mkdir()
    line = input_error_line(find_run, NAME.upper().replace("LR0.05", "LR0.5"), *folders)
    assert f" in {folders[0]} or {folders[1]}, did you mean {NAME}? (runs there: {NAME}, mnist_" in line
    assert "empty" not in line
    for text in ("nothing like it", "", str(tmp_path / "nowhere"), "long" * 99):
        line = input_error_line(find_run, text, *folders)
        assert line.startswith(f"--run {text}: no folder of this name with config.json in ")
        assert "did you mean" not in line
    assert "runs there" not in input_error_line(find_run, NAME, str(tmp_path / "a"), str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("jobs", "n_targets", "n_shadows"),
    [
        ([], 0, 0),
        ([("target", 0), *(("shadow", i) for i in range(6))], 1, 6),
        ([("target", i) for i in range(12)], 12, 0),
        ([("target", 0), ("target", 2), ("shadow", 1), ("shadow", 2), ("shadow", 3)], 1, 0),  # gaps
        ([("target", 1), *(("shadow", i) for i in (0, 1, 2, 3, 4, 6, 7))], 0, 4),  # the fifth has no partner
        ([("shadow", i) for i in range(123)], 0, 122),
    ],
)
def test_models_on_disk_count_without_gaps_and_shadows_in_pairs(tmp_path, jobs, n_targets, n_shadows):
    for job in jobs:
        (tmp_path / f"{model_name(*job)}.pt").touch()
    assert n_on_disk(tmp_path) == (n_targets, n_shadows)
    assert n_on_disk(tmp_path / "no folder") == (0, 0)
