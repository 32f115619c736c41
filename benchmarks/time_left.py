"""Is the time left that the bar of a fleet shows believable? python benchmarks/time_left.py [flags of train_model.py]

Trains a fleet (by default 22 small models on digits, from nothing, in a folder that is removed) and says, for each
tenth of its work, what the bar showed as left and what was really left. Wanted: within 20 % after a tenth."""

import shlex
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import train_model
from lira.training import schedule

FLAGS = shlex.split(
    "--dataset digits --network ConvNet --disable-dp --epochs 20 --lr 0.02 --train-batch-size 64 --eval-every 5 -r 2"
)


def main(argv: list[str]) -> int:
    seen, tell = [], schedule.ProgressBars.tell  # (seconds, part done, seconds left as shown)

    def listen(bars) -> None:
        tell(bars)
        shown = bars._fleet.format_dict
        rate = shown["rate"] or (shown["n"] / shown["elapsed"] if shown["elapsed"] else 0)
        if rate and shown["total"]:
            left = (shown["total"] - shown["n"]) / rate
            seen.append((time.perf_counter(), shown["n"] / shown["total"], left))

    schedule.ProgressBars.tell = listen
    with tempfile.TemporaryDirectory() as folder:
        folders = ["--model-dir", f"{folder}/model", "--result-dir", f"{folder}/result"]
        status = train_model.main([*FLAGS, *argv, *folders])
    end = seen[-1][0]
    print("done  shown left  really left  off by")
    for tenth in range(1, 10):
        at, part, left = next(row for row in seen if row[1] >= tenth / 10)
        print(f"{part:4.0%}  {left:8.1f} s  {end - at:9.1f} s  {left / (end - at) - 1:+7.0%}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
