"""scores.npz as a cache: only what is missing is asked, and what changed is asked again."""

import numpy as np
import pytest

from lira.storage import scores
from lira.storage.runs import Run

JOBS = [("target", 0), ("shadow", 0), ("shadow", 1), ("shadow", 2)]
PLAIN, SHIFTED = ((0, 0, False),), ((0, 0, False), (0, 1, False))
N = 6
MEMBER = np.random.default_rng(0).random((4, N)) < 0.5
LABEL = np.arange(N) % 3


class Models:
    """A run whose models' weights are known by a word, and which counts who is asked."""

    def __init__(self, folder, monkeypatch):
        self.run, self.asked = Run(folder / "model", folder / "result"), []
        self.weights = {job: f"weights of {job[0]} {job[1]}" for job in JOBS}
        monkeypatch.setattr(Run, "record", lambda run, *job: {"sha256": self.weights[job]})
        monkeypatch.setattr(Run, "models_on_disk", lambda run: list(self.weights))

    def phi(self, job, queries=PLAIN):
        """What the model says: another number for other weights."""
        seed = int.from_bytes(self.weights[job].encode(), "little")
        own = [np.random.default_rng((seed, *map(int, query))).normal(size=N) for query in queries]
        return np.stack(own, axis=1).astype(np.float32)

    def gather(self, jobs=JOBS, *, queries=PLAIN, label=LABEL, stop_at=None):
        self.asked.clear()
        self.told = []

        def ask(job, queries):
            if job == stop_at:
                raise KeyboardInterrupt
            self.asked.append(job)
            self.told.append(queries)
            return self.phi(job, queries)

        member = MEMBER[[JOBS.index(job) for job in jobs]]
        found = scores.gather(self.run, jobs, member, label, queries, ask, quiet=True)
        np.testing.assert_array_equal(found, [self.phi(job, queries) for job in jobs])
        self.check_file(jobs, queries=queries)
        return found

    def check_file(self, jobs, *, queries=PLAIN):
        """scores.npz holds these models, row by row in this order."""
        known = self.run.load_scores()
        np.testing.assert_array_equal(known["phi"], [self.phi(job, queries) for job in jobs])
        np.testing.assert_array_equal(known["member"], MEMBER[[JOBS.index(job) for job in jobs]])
        assert known["role"].tolist() == [int(role == "shadow") for role, _ in jobs]
        assert known["index"].tolist() == [index for _, index in jobs]
        assert known["weights"].tolist() == [self.weights[job] for job in jobs]


@pytest.fixture
def models(tmp_path, monkeypatch):
    return Models(tmp_path, monkeypatch)


def test_everyone_is_asked_once_in_their_order(models):
    found = models.gather()
    assert found.shape == (4, N, 1)
    assert found.dtype == np.float32
    assert models.asked == JOBS
    path = models.run.results / "scores.npz"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    models.gather()
    assert models.asked == []
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_only_what_is_missing_is_asked(models):
    models.gather(JOBS[:2])
    models.gather()
    assert models.asked == JOBS[2:]
    models.gather([JOBS[0], JOBS[3]])  # fewer than the file holds
    assert models.asked == []


def test_another_order_is_written_without_asking(models):
    models.gather()
    models.gather(JOBS[::-1])
    assert models.asked == []


def test_changed_weights_are_asked_again_alone(models):
    models.gather()
    models.weights["shadow", 1] = "trained anew"
    models.gather()
    assert models.asked == [("shadow", 1)]


@pytest.mark.parametrize("change", [{"label": LABEL[::-1].copy()}, {"queries": ((1, 0, False),)}])
def test_other_labels_or_queries_ask_everyone_again(models, change):
    models.gather()
    models.gather(**change)
    assert models.asked == JOBS
    models.gather(**change)
    assert models.asked == []


def test_fewer_models_and_other_queries_lose_nothing(models):
    models.gather()
    models.gather(queries=SHIFTED)
    assert models.told == [SHIFTED[1:]] * 4  # the plain answers are there already
    models.gather(JOBS[:2], queries=PLAIN)
    assert models.asked == []
    models.gather(JOBS, queries=SHIFTED[::-1])
    assert models.asked == []
    del models.weights["shadow", 2]  # gone from the disk: its answers go with it
    models.weights["shadow", 1] = "trained anew"
    models.gather(JOBS[:3], queries=PLAIN)
    assert models.asked == [("shadow", 1)]
    held = models.run.load_scores()
    assert set(held["cached_weights"]) == {models.weights[job] for job in JOBS[:2]}
    np.testing.assert_array_equal(held["cached_queries"], [(0, 1, False)] * 2)


def test_a_stop_keeps_what_other_attacks_asked(models, monkeypatch):
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    models.gather()
    with pytest.raises(KeyboardInterrupt):
        models.gather(queries=SHIFTED, stop_at=("shadow", 1))
    models.gather(queries=PLAIN)
    assert models.asked == []
    models.gather(queries=SHIFTED)
    assert models.asked == JOBS[2:]


def test_two_models_with_equal_weights_are_two_rows(models):
    models.weights["shadow", 2] = models.weights["shadow", 1]
    models.gather()
    models.gather()
    assert models.asked == []


def test_a_stop_costs_only_what_was_not_saved(models, monkeypatch):
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    with pytest.raises(KeyboardInterrupt):
        models.gather(stop_at=("shadow", 1))
    assert models.asked == JOBS[:2]
    models.check_file(JOBS[:2])
    models.gather()
    assert models.asked == JOBS[2:]


def test_a_partial_file_keeps_the_order_of_the_models(models, monkeypatch):
    """Known are the last ones: the file must not begin with them."""
    monkeypatch.setattr(scores, "SAVE_EVERY", -1)
    models.gather(JOBS[2:])
    with pytest.raises(KeyboardInterrupt):
        models.gather(stop_at=JOBS[1])
    models.check_file([JOBS[0], *JOBS[2:]])


def test_scores_of_another_version_are_made_anew(models):
    models.gather()
    known = models.run.load_scores()
    models.run.save_scores(**{name: known[name] for name in ("phi", "member", "label", "role")})
    models.gather()
    assert models.asked == JOBS


def test_corrupted_scores_are_made_anew(models, capsys):
    models.gather()
    path = models.run.results / "scores.npz"
    path.write_bytes(path.read_bytes()[:200])
    models.gather()
    assert models.asked == JOBS
    assert "scores.npz is corrupted" in capsys.readouterr().err
