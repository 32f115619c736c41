"""What is recorded about where and how something was computed."""

import datetime
import json
import shlex

from lira.storage.provenance import provenance


def test_provenance_can_be_repeated_and_stored():
    argv = ["--dataset", "my data; $x", "-n", "3"]
    recorded = provenance("train_model.py", argv)
    assert shlex.split(recorded["command"]) == ["python", "train_model.py", *argv]
    assert datetime.datetime.strptime(recorded["started"], "%Y-%m-%dT%H:%M:%S%z").tzinfo is not None
    assert set(recorded["versions"]) == {"python", "torch", "numpy", "scipy", "scikit-learn"}
    assert json.loads(json.dumps(recorded)) == recorded
