"""scores.npz as a cache: only what is missing or changed is queried. Scores from elsewhere."""

import contextlib

import numpy as np
import pytest

from lira.errors import InputError
from lira.storage import scores
from lira.storage.runs import Run
from lira.storage.scores import ScoreCache, load_scores, read_scores, save_scores
from tests.helpers.attack_inputs import inputs
from tests.helpers.errors import input_error_line

JOBS = [("target", 0), ("shadow", 0), ("shadow", 1), ("shadow", 2)]
PLAIN, SHIFTED = ((0, 0, False),), ((0, 0, False), (0, 1, False))
N = 6
MEMBER = np.random.default_rng(0).random((4, N)) < 0.5
LABEL = np.arange(N) % 3


class Models:
    """A run of models without files, which records the queries of each. weights: stands for their digests."""

    def __init__(self, folder, monkeypatch):
        self.run = Run(folder / "model", folder / "result")
        self.weights = {job: f"weights of {job[0]} {job[1]}" for job in JOBS}
        monkeypatch.setattr(Run, "record", lambda run, *job: {"sha256": self.weights[job]})
        monkeypatch.setattr(Run, "models_on_disk", lambda run: list(self.weights))

    def phi(self, job, queries=PLAIN):
        """The scores of a model, float32 (N, A): others for other weights."""
        seed = int.from_bytes(self.weights[job].encode(), "little")
        columns = [np.random.default_rng((seed, *map(int, query))).normal(size=N) for query in queries]
        return np.stack(columns, axis=1).astype(np.float32)

    def score(self, jobs=JOBS, *, queries=PLAIN, label=LABEL, stop_at=None):
        """Fill a cache as attack_lira.py does and check what it returns and writes; self.queried: what was missing."""
        self.queried = []
        cache = ScoreCache(self.run, jobs, MEMBER[[JOBS.index(job) for job in jobs]], label, queries)
        for job, missing in cache.missing():
            if job == stop_at:
                raise KeyboardInterrupt
            self.queried.append((job, missing))
            cache.add(job, missing, self.phi(job, missing))
        cache.save()
        np.testing.assert_array_equal(cache.phi, [self.phi(job, queries) for job in jobs])
        self.check_file(jobs, queries=queries)
        return cache.phi

    @property
    def queried_jobs(self):
        return [job for job, _ in self.queried]

    def check_file(self, jobs, *, queries=PLAIN):
        """scores.npz holds these models, row by row in this order."""
        stored = load_scores(self.run)
        np.testing.assert_array_equal(stored["phi"], [self.phi(job, queries) for job in jobs])
        np.testing.assert_array_equal(stored["member"], MEMBER[[JOBS.index(job) for job in jobs]])
        assert stored["role"].tolist() == [int(role == "shadow") for role, _ in jobs]
        assert stored["index"].tolist() == [index for _, index in jobs]
        assert stored["weights"].tolist() == [self.weights[job] for job in jobs]


@pytest.fixture
def models(tmp_path, monkeypatch):
    return Models(tmp_path, monkeypatch)


# --- the cache -----------------------------------------------------------------------------------------------------


def test_every_model_is_queried_once_in_order(models):
    phi = models.score()
    assert phi.shape == (4, N, 1)
    assert phi.dtype == np.float32
    assert models.queried_jobs == JOBS
    path = models.run.results / "scores.npz"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    models.score()
    assert models.queried == []
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_only_what_is_missing_is_queried(models):
    models.score(JOBS[:2])
    models.score()
    assert models.queried_jobs == JOBS[2:]
    models.score([JOBS[0], JOBS[3]])  # fewer than the file holds
    assert models.queried == []


def test_another_order_is_written_without_a_query(models):
    models.score()
    models.score(JOBS[::-1])
    assert models.queried == []


def test_only_a_model_whose_weights_changed_is_queried_again(models):
    models.score()
    models.weights["shadow", 1] = "trained again"
    models.score()
    assert models.queried_jobs == [("shadow", 1)]


@pytest.mark.parametrize("change", [{"label": LABEL[::-1].copy()}, {"queries": ((1, 0, False),)}])
def test_with_other_labels_or_queries_all_models_are_queried_again(models, change):
    models.score()
    models.score(**change)
    assert models.queried_jobs == JOBS
    models.score(**change)
    assert models.queried == []


def test_an_attack_with_fewer_models_or_other_queries_loses_no_scores(models):
    models.score()
    models.score(queries=SHIFTED)
    assert models.queried == [(job, SHIFTED[1:]) for job in JOBS]  # the plain query is in the file
    models.score(JOBS[:2], queries=PLAIN)
    assert models.queried == []
    models.score(JOBS, queries=SHIFTED[::-1])
    assert models.queried == []
    del models.weights["shadow", 2]  # its weights were deleted: its scores are too
    models.weights["shadow", 1] = "trained again"
    models.score(JOBS[:3], queries=PLAIN)
    assert models.queried_jobs == [("shadow", 1)]
    stored = load_scores(models.run)
    assert set(stored["cached_weights"]) == {models.weights[job] for job in JOBS[:2]}
    np.testing.assert_array_equal(stored["cached_queries"], [(0, 1, False)] * 2)


def test_an_interrupt_keeps_the_scores_of_other_attacks(models, monkeypatch):
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    models.score()
    with pytest.raises(KeyboardInterrupt):
        models.score(queries=SHIFTED, stop_at=("shadow", 1))
    models.score(queries=PLAIN)
    assert models.queried == []
    models.score(queries=SHIFTED)
    assert models.queried_jobs == JOBS[2:]


def test_two_models_with_equal_weights_are_two_rows(models):
    models.weights["shadow", 2] = models.weights["shadow", 1]
    models.score()
    models.score()
    assert models.queried == []


def test_an_interrupt_loses_only_what_was_not_saved(models, monkeypatch):
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    with pytest.raises(KeyboardInterrupt):
        models.score(stop_at=("shadow", 1))
    assert models.queried_jobs == JOBS[:2]
    models.check_file(JOBS[:2])
    models.score()
    assert models.queried_jobs == JOBS[2:]


def test_a_partial_file_keeps_the_order_of_the_models(models, monkeypatch):
    """The last models are in the file already; it must not begin with them."""
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    models.score(JOBS[2:])
    with pytest.raises(KeyboardInterrupt):
        models.score(stop_at=JOBS[1])
    models.check_file([JOBS[0], *JOBS[2:]])


def test_scores_of_another_version_are_queried_again(models):
    models.score()
    stored = load_scores(models.run)
    save_scores(models.run, **{name: stored[name] for name in ("phi", "member", "label", "role")})
    models.score()
    assert models.queried_jobs == JOBS


def test_corrupted_scores_are_named_and_queried_again(models, capsys):
    models.score()
    path = models.run.results / "scores.npz"
    valid = path.read_bytes()
    for corrupted in (b"", b"text", valid[:200], valid[:-30]):
        path.write_bytes(corrupted)
        models.score()
        assert models.queried_jobs == JOBS
        assert "scores.npz is corrupted" in capsys.readouterr().err


def test_a_changed_number_is_detected_in_a_valid_zip_file(models):
    models.score()
    path = models.run.results / "scores.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    assert all(array.dtype.kind != "O" for array in arrays.values())
    np.savez(path, **arrays | {"phi": arrays["phi"] + np.float32(1e-3)})
    assert load_scores(models.run) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_named_and_never_saved(models, value):
    """Those of the models queried before are: the next attack queries the others again."""
    cache = ScoreCache(models.run, JOBS, MEMBER, LABEL, SHIFTED)
    for job in JOBS[:2]:
        cache.add(job, SHIFTED, models.phi(job, SHIFTED))
    invalid = models.phi(JOBS[2], SHIFTED)
    invalid[3, 1] = value
    line = input_error_line(cache.add, JOBS[2], SHIFTED, invalid)
    assert f"shadow_01.pt: its score of sample 3 is {value}" in line
    models.check_file(JOBS[:2], queries=SHIFTED)
    models.score(queries=SHIFTED)
    assert models.queried_jobs == JOBS[2:]


def test_without_one_finite_model_no_scores_are_written(models):
    cache = ScoreCache(models.run, JOBS, MEMBER, LABEL, PLAIN)
    input_error_line(cache.add, JOBS[0], PLAIN, np.full((N, 1), np.nan))
    assert load_scores(models.run) is None


def test_stored_scores_that_are_not_finite_are_queried_again(models):
    """As an earlier version saved them."""
    models.score()
    stored = load_scores(models.run)
    stored["phi"][2, 4] = np.nan
    save_scores(models.run, **stored)
    models.score()
    assert models.queried_jobs == [JOBS[2]]


def test_scores_are_loaded_as_they_were_saved(tmp_path):
    run = Run(tmp_path / "model", tmp_path / "result")
    arrays = {
        "phi": np.arange(24, dtype=np.float32).reshape(2, 12, 1),
        "member": np.eye(2, 12, dtype=bool),
        "role": np.array([0, 1], dtype=np.int8),
        "weights": np.array(["x", "y"]),
    }
    assert load_scores(run) is None
    save_scores(run, **arrays)
    loaded = load_scores(run)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)


# --- scores from elsewhere -----------------------------------------------------------------------------------------


def saved(folder, **arrays):
    """An .npz file of phi, member and these arrays; one that is None is left out."""
    reference = inputs()
    arrays = {"phi": reference.phi, "member": reference.member} | arrays
    np.savez(folder / "scores.npz", **{name: array for name, array in arrays.items() if array is not None})
    return folder / "scores.npz"


def test_all_queries_are_read(tmp_path):
    expected = inputs(n_queries=3)
    path = saved(tmp_path, phi=expected.phi, member=expected.member, label=expected.label)
    loaded = read_scores(path, n_targets=2)
    np.testing.assert_array_equal(loaded.phi, expected.phi)
    np.testing.assert_array_equal(loaded.member, expected.member)
    np.testing.assert_array_equal(loaded.label, expected.label)
    assert (loaded.n_targets, loaded.model_names, loaded.class_names) == (2, expected.model_names, ("0", "1", "2", "3"))
    assert loaded.images is None
    assert loaded.n_shadows == 6


def test_one_query_needs_no_axis_and_no_label(tmp_path):
    expected = inputs()
    loaded = read_scores(saved(tmp_path, phi=expected.phi[..., 0]), n_targets=3)
    np.testing.assert_array_equal(loaded.phi, expected.phi)
    assert loaded.model_names[2:4] == ("target_02", "shadow_00")
    assert loaded.label.tolist() == [0] * 40
    assert loaded.class_names == ("0",)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"phi": np.full((8, 40), None)}, ["cannot be read", "allow_pickle=False"]),
        ({"label": np.full(40, None)}, ["cannot be read", "allow_pickle=False"]),
        ({"phi": None}, ["phi, logits, probabilities", "there is none"]),
        ({"member": None}, ["no array 'member'"]),
        ({"label": np.zeros(39, dtype=int)}, ["label", "40 class numbers", "(39,)"]),
        ({"label": np.zeros((40, 1), dtype=int)}, ["label", "(40, 1)"]),
        ({"label": np.zeros(40)}, ["label", "float64"]),
        ({"label": np.arange(40) - 1}, ["label", "column 0", "-1"]),
        ({"label": np.where(np.arange(40) == 6, 10**12, 0)}, ["label", "column 6", "1000000000000"]),
    ],
)
def test_invalid_arrays_are_rejected_by_name(tmp_path, changed, words):
    """Those in the values of phi and member are in tests/attacks/test_inputs.py."""
    line = input_error_line(read_scores, saved(tmp_path, **changed), n_targets=2)
    for word in words:
        assert word in line


def test_what_is_no_npz_file_is_rejected(tmp_path):
    assert "no such file" in input_error_line(read_scores, tmp_path / "missing.npz", n_targets=2)
    assert "no such file" in input_error_line(read_scores, tmp_path, n_targets=2)
    valid = saved(tmp_path).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, content in (("empty", b""), ("text", b"no scores\n" * 9), ("head", valid[:4])):
        (tmp_path / name).write_bytes(content)
        assert f"{name} cannot be read" in input_error_line(read_scores, tmp_path / name, n_targets=2)
    assert "array.npy cannot be read" in input_error_line(read_scores, tmp_path / "array.npy", n_targets=2)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_or_flipped_anywhere_is_rejected_or_read(tmp_path, save):
    path, corrupted = tmp_path / "valid.npz", tmp_path / "corrupted.npz"
    reference = inputs()
    save(path, phi=reference.phi, member=reference.member)
    valid, rng = path.read_bytes(), np.random.default_rng(0)
    for length in rng.integers(0, len(valid), 60):
        corrupted.write_bytes(valid[:length])
        assert "cannot be read" in input_error_line(read_scores, corrupted, n_targets=2)
    for place in rng.integers(0, len(valid), 200):
        corrupted.write_bytes(valid[:place] + bytes([valid[place] ^ (1 << rng.integers(8))]) + valid[place + 1 :])
        with contextlib.suppress(InputError):
            read_scores(corrupted, n_targets=2)
