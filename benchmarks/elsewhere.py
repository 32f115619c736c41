"""Models trained without this toolkit, in files for attack_lira.py: a plain loop on CIFAR-10, a forest on Adult.

python benchmarks/elsewhere.py loop data/cifar10-jpeg --seed 0     # mine0.pt, logits0.npz, probabilities0.npz
python benchmarks/elsewhere.py forest adult.data                   # forest.npz and clipped.npz, for --scores
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from lira.data.folder import read_folder

MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]))


def prepare(x: np.ndarray) -> torch.Tensor:
    """uint8 (N, C, H, W) -> what the network is trained on, by the usual constants of CIFAR-10."""
    return (torch.from_numpy(x).to(memory_format=torch.channels_last).float() / 255 - MEAN) / STD


def loop(folder: Path, seed: int) -> None:
    """ConvNet, written out, on 5,000 training and 5,000 test images of the folder."""
    images = read_folder(folder.resolve(), Path("data"))
    rng = np.random.default_rng(1000 + seed)
    torch.manual_seed(seed)
    member = np.zeros(len(images.y_test), dtype=bool)
    member[rng.permutation(len(member))[:5000]] = True
    others = rng.permutation(len(images.y_train))[:5000]
    x = prepare(np.concatenate([images.x_train.numpy()[others], images.x_test.numpy()[member]]))
    y = torch.cat([images.y_train[others], images.y_test[torch.from_numpy(member)]])
    model = nn.Sequential(
        *(nn.Identity(), nn.Conv2d(3, 64, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(64, 64, 5), nn.MaxPool2d(2)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(1600, 512), nn.ReLU(), nn.Linear(512, 10)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [16], 0.1)
    for _ in range(20):
        for batch in torch.randperm(len(x)).split(256):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x[batch])
            loss = F.cross_entropy(logits.float(), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    torch.save({"model_state_dict": model.state_dict(), "epoch": 20, "member": member.tolist()}, f"mine{seed}.pt")
    with torch.no_grad():
        outputs = torch.cat([model.eval()(prepare(part)) for part in np.array_split(images.x_test.numpy(), 20)])
    np.savez(f"logits{seed}.npz", logits=outputs.numpy(), member=member)
    np.savez(f"probabilities{seed}.npz", probabilities=outputs.softmax(1).numpy(), member=member)


def forest(file: Path) -> None:
    """A target and 20 shadows of 100 trees on 10,000 rows, each row in about half of them."""
    table = pd.read_csv(file, header=None, skipinitialspace=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(table))[:10_000]
    x = pd.get_dummies(table.iloc[:, :-1]).to_numpy(np.float32)[rows]
    label = (table.iloc[rows, -1] == ">50K").to_numpy(np.int64)
    member = rng.random((21, len(x))) < 0.5
    member[2::2] = ~member[1::2]  # shadows in pairs
    forests = [RandomForestClassifier(random_state=0).fit(x[rows], label[rows]) for rows in member]
    p = np.array([forest.predict_proba(x) for forest in forests])
    correct = p.argmax(axis=-1) == label
    print(f"{correct[member].mean():.1%} of the members and {correct[~member].mean():.1%} of the others are correct")
    np.savez("forest.npz", probabilities=p, member=member, label=label)
    np.savez("clipped.npz", probabilities=p.clip(0.005, 0.995), member=member, label=label)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("loop", "forest"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    forest(args.data) if args.kind == "forest" else loop(args.data, args.seed)
