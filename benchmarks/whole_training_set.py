"""An .npz in which every image of a training set is a target sample: the protocol of most papers.

    python benchmarks/whole_training_set.py cifar10 data/cifar10-whole.npz
    python train_model.py --dataset data/cifar10-whole.npz --network WRN28-2 --disable-dp --n-train 0

With --n-train 0 each model trains on a random half of the file's x_test, which is the training set, and all of it is
audited. The file's x_train is the test set: its two halves measure the test accuracy, and its channels normalise the
images. The dataset is given as for train_model.py, in its own split."""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import dataset_name, load_dataset
from lira.atomic import write_atomically


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("file", type=Path)
    parser.add_argument("--data-root", default="data", help="as for train_model.py")
    args = parser.parse_args()
    images, _ = load_dataset(dataset_name(args.dataset), args.data_root)
    content = {
        "x_train": images.x_test.permute(0, 2, 3, 1).numpy(),
        "y_train": images.y_test.numpy(),
        "x_test": images.x_train.permute(0, 2, 3, 1).numpy(),
        "y_test": images.y_train.numpy(),
        "class_names": np.array(images.class_names),
    }
    write_atomically(args.file, lambda file: np.savez(file, **content))
    print(f"{args.file}: {len(content['x_test']):,} target samples, {len(content['x_train']):,} images to test with")


if __name__ == "__main__":
    main()
