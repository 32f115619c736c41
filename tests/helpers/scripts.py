"""What the tests of the two scripts share: networks that train in a moment, flags, calling main()."""

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:mlp --disable-dp --epochs 30 --n-shadows 4 --n-runs 2 --n-train 40 "
    "--lr 0.1 --eval-every 20 --no-augment --precision fp32 --device cpu"
)


# --- calling the scripts -------------------------------------------------------------------------------------------


def script(name, argv, cwd, **how):
    """The real script in a process of its own, on one thread."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / name), *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, **how)


@dataclass(frozen=True)
class Called:
    """What one call of a script gave: its exit status and all that it wrote."""

    status: int
    out: str
    err: str


def call(main, argv) -> Called:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(list(map(str, argv)))
    return Called(status, out.getvalue(), err.getvalue())


def rejected(main, argv) -> str:
    """The one line in which a script refuses its flags, with exit status 2 and without bars."""
    called = call(main, argv)
    assert called.status == 2, called.out + called.err
    assert called.err.startswith("error: ")
    assert called.err.endswith("\n")
    assert len(called.err.splitlines()) == 1, called.err
    return called.err


def run_folders(folder) -> list[str]:
    return ["--model-dir", str(folder / "model"), "--result-dir", str(folder / "result")]


@dataclass(frozen=True)
class Finished:
    """A run on disk with what its two scripts said."""

    folder: Path
    argv: list[str]
    trained: Called
    attacked: Called

    @classmethod
    def made_in(cls, folder: Path, flags: list[str]) -> "Finished":
        """Trained and attacked by main()."""
        import attack_lira  # here: the scripts import this file too, for its networks
        import train_model

        argv = [*flags, *run_folders(folder)]
        trained, attacked = call(train_model.main, argv), call(attack_lira.main, argv)
        assert (trained.status, attacked.status) == (0, 0), trained.err + attacked.err
        return cls(folder, argv, trained, attacked)

    @property
    def models(self) -> Path:
        return next((self.folder / "model").iterdir())

    @property
    def results(self) -> Path:
        return next((self.folder / "result").iterdir())

    def copy(self, folder) -> "Finished":
        for name in ("model", "result"):
            shutil.copytree(self.folder / name, folder / name)
        kept = self.argv[: -len(run_folders(folder))]
        return Finished(folder, [*kept, *run_folders(folder)], self.trained, self.attacked)


def contents(folder, pattern="*") -> dict[str, bytes]:
    """Relative path -> bytes of every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def stamps(folder, pattern="*") -> dict[str, tuple[int, int]]:
    """Relative path -> (inode, time of change): equal before and after where nobody wrote."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob(pattern)
        if path.is_file()
    }
