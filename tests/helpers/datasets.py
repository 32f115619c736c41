"""Small datasets in each of the formats."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image


def md5(data):
    return hashlib.md5(data).hexdigest()


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(channels=3, n_train=6, n_test=4, names=None):
    shape = (8, 10, channels) if channels else (8, 10)
    content = {
        "x_train": pixels(n_train, *shape),
        "y_train": np.arange(n_train) % 3,
        "x_test": pixels(n_test, *shape, seed=1),
        "y_test": np.arange(n_test) % 3,
    }
    return content if names is None else content | {"class_names": np.array(names)}


class FailsWhenUnpickled:
    """Reading a pickle runs the code in it: this one fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


# ---- a folder

N_TRAIN, N_TEST = 11, 3  # per class; more than ten, so that 10.png must come after 9.png


def write_images(path, channels=3, suffix=".png", classes=("ant", "bee")):
    """A folder of random images of 8x10 pixels; returns its arrays in the order in which they must be read."""
    content = {}
    for seed, (split, n) in enumerate((("train", N_TRAIN), ("test", N_TEST))):
        x = pixels(len(classes) * n, 8, 10, *([3] if channels == 3 else []), seed=seed)
        y = np.repeat(np.arange(len(classes)), n)
        for index in reversed(range(len(x))):  # created in another order than they are read
            file = path / split / classes[y[index]] / f"{index % n}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[index]).save(file)
        content |= {f"x_{split}": x, f"y_{split}": y}
    return content


# ---- archives in the official formats


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def batch(x, **labels):
    """A batch file of the official archives: rows of 3,072 bytes, the red plane first, as in x (N, 3, 32, 32)."""
    return pickle.dumps({"data": x.reshape(len(x), -1), **labels}, protocol=2)


def write_cifar10(root, monkeypatch):
    dataset = torchvision.datasets.CIFAR10
    x, y = pixels(14, 3, 32, 32), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    parts = {f"data_batch_{i + 1}": slice(2 * i, 2 * i + 2) for i in range(5)} | {"test_batch": slice(10, 14)}
    files = {name: batch(x[part], labels=y[part]) for name, part in parts.items()}
    meta = pickle.dumps({"label_names": names}, protocol=2)
    install(dataset, root, files, "batches.meta", meta, monkeypatch)
    return x[:10], y[:10], x[10:], y[10:], names


def write_cifar100(root, monkeypatch):
    dataset = torchvision.datasets.CIFAR100
    x, y = pixels(6, 3, 32, 32), [99, 0, 42, 7, 42, 99]
    names = [f"fine {k}" for k in range(100)]
    parts = {"train": slice(0, 4), "test": slice(4, 6)}
    files = {
        name: batch(x[part], fine_labels=y[part], coarse_labels=[k // 5 for k in y[part]])
        for name, part in parts.items()
    }
    meta = {"fine_label_names": names, "coarse_label_names": [f"coarse {k}" for k in range(20)]}
    install(dataset, root, files, "meta", pickle.dumps(meta, protocol=2), monkeypatch)
    return x[:4], y[:4], x[4:], y[4:], names


def install(dataset, root, files, meta_name, meta, monkeypatch):
    """Write the archive and put its checksums in place of those of the official one in torchvision."""
    lists = {"test_list": [name for name in files if name.startswith("test")]}
    lists["train_list"] = [name for name in files if name not in lists["test_list"]]
    for key, names in lists.items():
        monkeypatch.setattr(dataset, key, [[name, md5(files[name])] for name in names])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"filename": meta_name, "md5": md5(meta)})
    archive = root / dataset.filename
    write_tar(archive, {f"{dataset.base_folder}/{name}": data for name, data in {**files, meta_name: meta}.items()})
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive.read_bytes()))


def write_mnist(root, monkeypatch):
    x, y = pixels(7, 28, 28), [7, 2, 1, 0, 4, 1, 9]
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for prefix, part in (("train", slice(0, 5)), ("t10k", slice(5, 7))):
        images = struct.pack(">IIII", 0x803, len(x[part]), 28, 28) + x[part].tobytes()
        labels = struct.pack(">II", 0x801, len(y[part])) + bytes(y[part])
        for name, data in (
            (f"{prefix}-images-idx3-ubyte.gz", images),
            (f"{prefix}-labels-idx1-ubyte.gz", labels),
        ):
            (raw / name).write_bytes(gzip.compress(data))
            resources.append((name, md5((raw / name).read_bytes())))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    return x[:5, None], y[:5], x[5:, None], y[5:], torchvision.datasets.MNIST.classes


WRITERS = {"cifar10": write_cifar10, "cifar100": write_cifar100, "mnist": write_mnist}
ARCHIVES = {
    "cifar10": ["cifar-10-python.tar.gz"],
    "cifar100": ["cifar-100-python.tar.gz"],
    "mnist": [
        f"MNIST/raw/{file}-ubyte.gz"
        for file in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ],
}
