"""The house stays as drawn: imports point one way, and importing the surface imports little."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
HEAVY = ("torch", "lightning_fabric", "matplotlib", "tensorboard", "automata", "numba", "triton")

REPORT_HEAVY = f"""
import sys
loaded = [name for name in {HEAVY!r} if name in sys.modules]
if loaded:
    sys.exit(f"imported: {{loaded}}")
"""
HELP = """
import sys
from fastweights.cli import main
sys.argv = ["fastweights", "--help"]
try:
    status = main()
except SystemExit as stop:
    status = stop.code
if status:
    sys.exit(f"--help ended with {status}")
"""


LINT_IMPORTS = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True, no_logo=True))
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter at the root of the project, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imports_point_one_way() -> None:
    done = run_python(LINT_IMPORTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import fastweights",
        "import fastweights.cli",
        "import fastweights.study",
        "import fastweights.train.config",
    ],
)
def test_importing_the_surface_imports_nothing_heavy(code: str) -> None:
    done = run_python(code + REPORT_HEAVY)
    assert done.returncode == 0, done.stderr


def test_fabric_is_imported_by_training_alone() -> None:
    """It takes longer to import than torch, mostly for torch's compiler."""
    code = "import sys, fastweights.evaluate, fastweights.train.loop\n"
    done = run_python(code + "assert not {'lightning_fabric', 'torch._dynamo'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    done = run_python(HELP + REPORT_HEAVY)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_importing_every_module_computes_nothing() -> None:
    """No module prints, warns or touches CUDA when imported."""
    modules = sorted(
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for path in (SOURCE / "fastweights").rglob("*.py")
        if path.stem != "__main__"
    )
    code = "".join(f"import {module}\n" for module in modules) + (
        "import torch\nassert not torch.cuda.is_initialized(), 'CUDA was initialised'\n"
    )
    done = run_python(code)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_numba_and_triton_are_imported_only_where_a_kernel_runs() -> None:
    """There are machines without them: no import at the top of a module, but in the kernels."""
    pattern = re.compile(r"^(import|from) (llvmlite|numba|triton)\b", flags=re.MULTILINE)
    package = SOURCE / "fastweights"
    kernels = package / "kernels" / "cpu"
    sources = [path for path in package.rglob("*.py") if kernels not in path.parents]
    assert [str(path) for path in sources if pattern.search(path.read_text("utf-8"))] == []
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in sources]
    modules = [
        name for name in names if re.match(r"fastweights\.(kernels|ops|layers|models)\.", name)
    ]
    code = "".join(f"import {name}\n" for name in modules)
    done = run_python(code + "import sys\nsys.exit('numba' in sys.modules)")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_version_is_the_one_of_the_project_file_and_the_changelog() -> None:
    import fastweights

    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r'^version = "(.+)"$', project, flags=re.MULTILINE)
    assert declared is not None
    assert fastweights.__version__ == declared[1]
    assert declared[1] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_unknown_attribute_of_the_package_is_named() -> None:
    import fastweights

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fastweights.no_such_name  # type: ignore[attr-defined,unused-ignore]


def test_lock_names_no_machine() -> None:
    """The lock holds versions and markers only: no index, no path, no hash."""
    lines = (ROOT / "constraints.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("torch==") for line in pins)
    pattern = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][\w.!+]*( ; [\w\s.<>=!'()]+)?")
    assert [line for line in pins if not pattern.fullmatch(line)] == []


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
