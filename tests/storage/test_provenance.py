"""What is recorded about where and how a run was made."""

import datetime
import json
import shlex

from lira.storage.provenance import training_provenance, versions


def test_training_provenance_can_be_repeated_and_stored():
    argv = ["--dataset", "my data; $x", "-n", "3"]
    recorded = training_provenance(argv, device_name="cpu x", privacy={"sampling": "Poisson"})
    assert shlex.split(recorded["command"]) == ["python", "train_model.py", *argv]
    assert datetime.datetime.strptime(recorded["started"], "%Y-%m-%dT%H:%M:%S%z").tzinfo is not None
    assert (recorded["device"], recorded["privacy"]) == ("cpu x", {"sampling": "Poisson"})
    assert json.loads(json.dumps(recorded)) == recorded
    assert "privacy" not in training_provenance(argv, device_name="cpu x")


def test_versions_are_those_of_python_and_the_numeric_libraries():
    assert set(versions()) == {"python", "torch", "numpy", "scipy", "scikit-learn"}
