"""What the tests of the two scripts share: flags of a small run, calling main(), comparing folders."""

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
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TWO_WORKERS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FLAGS = shlex.split(
    "--dataset digits --network tests.helpers.networks:mlp --disable-dp --epochs 30 --n-shadows 4 --n-runs 2 "
    "--n-train 40 --lr 0.1 --eval-every 20 --no-augment --precision fp32 --device cpu"
)
TINY_RUN = shlex.split(  # the last of two equal flags counts
    "--dataset digits --network tests.helpers.networks:tiny --disable-dp --epochs 1 --n-shadows 4 --precision fp32 "
    "--device cpu --quiet"
)


def script(name, argv, cwd, **options):
    """Run the script in a subprocess, on one thread. Returns a CompletedProcess."""
    command = [sys.executable, str(ROOT / name), *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, **options)


@dataclass(frozen=True)
class ScriptResult:
    """Exit status and output of one call of main()."""

    status: int
    out: str
    err: str


def call(main, argv) -> ScriptResult:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(list(map(str, argv)))
    return ScriptResult(status, out.getvalue(), err.getvalue())


def rejected(main, argv) -> str:
    """The error, one line on stderr, of a script that ends with exit status 2 and shows no progress bar."""
    result = call(main, argv)
    assert result.status == 2, result.out + result.err
    assert result.err.startswith("error: ")
    assert result.err.endswith("\n")
    assert len(result.err.splitlines()) == 1, result.err
    return result.err


def run_folders(folder) -> list[str]:
    return ["--model-dir", str(folder / "model"), "--result-dir", str(folder / "result")]


@dataclass(frozen=True)
class FinishedRun:
    """A run on disk with the output of its two scripts."""

    folder: Path
    argv: list[str]
    trained: ScriptResult
    attacked: ScriptResult

    @classmethod
    def create(cls, folder: Path, flags: list[str]) -> "FinishedRun":
        """Train and attack by main()."""
        import attack_lira  # here: conftest.py imports this file for every test
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

    def copy(self, folder) -> "FinishedRun":
        for name in ("model", "result"):
            shutil.copytree(self.folder / name, folder / name)
        flags = self.argv[: -len(run_folders(folder))]
        return FinishedRun(folder, [*flags, *run_folders(folder)], self.trained, self.attacked)


def contents(folder, pattern="*") -> dict[str, bytes]:
    """Relative path -> bytes of every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}


def stamps(folder, pattern="*") -> dict[str, tuple[int, int]]:
    """Relative path -> (inode, time of modification) of every file under a folder: equal if nothing was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob(pattern)
        if path.is_file()
    }
