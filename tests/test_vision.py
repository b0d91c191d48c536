"""The torchvision import: mended where it must be, untouched everywhere else.

Every case needs an interpreter in which torchvision was never imported. Stand-ins for the
package make the cases independent of which build is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELPERS = """
import sys
import torch
from proofrun.vision import import_torchvision

def declared():
    try:
        return bool(torch.ops.torchvision.nms)
    except AttributeError:
        return False
"""
#: Fails as the real package does beside an unfitting torch; `_extension` is the part left behind.
MISMATCHED = """
from . import _extension
import torch

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(3, dtype=torch.long)

@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets.new_empty(3, dtype=torch.long)

READY = True
"""


def run(code: str, *path: Path) -> str:
    """Run `code` in a fresh interpreter with `path` first on the module path; its stdout."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", HELPERS + code],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def stub(folder: Path, init: str, **modules: str) -> Path:
    """A package `torchvision` in `folder` with the given sources."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    for name, source in {"__init__": init, **modules}.items():
        (package / f"{name}.py").write_text(source)
    return folder


def test_installed_torchvision_works() -> None:
    out = run(
        """
try:
    import torchvision
    plain = "fits"
except RuntimeError as error:
    assert str(error) == "operator torchvision::nms does not exist", error
    plain = "does not fit"
torchvision = import_torchvision()
assert import_torchvision() is torchvision is sys.modules["torchvision"]
from torchvision.transforms import v2
assert v2.functional.resize(torch.rand(3, 8, 8), [4, 4]).shape == (3, 4, 4)
assert torchvision.models.googlenet and torchvision.datasets.CIFAR10
loaded = [m for n, m in sys.modules.items() if n.startswith("torchvision.") and m is not None]
assert all(m is sys.modules[m.__name__] for m in loaded if hasattr(m, "__path__"))
assert declared()
boxes, scores = torch.tensor([[0., 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]), torch.tensor([3., 2, 1])
try:
    kept = torchvision.ops.nms(boxes, scores, 0.5).tolist()
except RuntimeError:
    kept = None
assert kept == ([0, 2] if plain == "fits" else None), kept  # a mended build has no kernels
print(torchvision.__version__, "beside torch", torch.__version__, plain)
"""
    )
    print(f"\n{out}", end="")


def test_mismatched_build_is_mended(tmp_path: Path) -> None:
    path = stub(tmp_path, MISMATCHED, _extension="import watch\nwatch.imports += 1\n")
    (path / "watch.py").write_text("imports = 0\n")
    run(
        """
import gc
import watch
torchvision = import_torchvision()
assert torchvision.READY and declared()
assert watch.imports == 2  # nothing of the failed import stays
assert import_torchvision() is torchvision and watch.imports == 2
gc.collect()  # the declarations are still there
boxes, scores = torch.empty(5, 4, device="meta"), torch.empty(5, device="meta")
assert torch.ops.torchvision.nms(boxes, scores, 0.5).shape == (3,)
""",
        path,
    )


def test_other_errors_pass_through(tmp_path: Path) -> None:
    path = stub(tmp_path, "import failing_cause\nraise failing_cause.error")
    (path / "failing_cause.py").write_text("error = None\n")
    run(
        """
import failing_cause
for failing_cause.error in (
    RuntimeError("PyTorch and torchvision were compiled with different CUDA major versions"),
    RuntimeError("operator torchvision::roi_align does not exist"),
    ImportError("libjpeg.so.62: cannot open shared object file"),
    OSError("broken"),
):
    try:
        import_torchvision()
    except Exception as error:
        assert error is failing_cause.error
    else:
        raise AssertionError("no error")
assert not declared()
""",
        path,
    )


def test_fitting_build_is_untouched(tmp_path: Path) -> None:
    path = stub(tmp_path, "import torch\nfrom . import part\nREADY = True\n", part="")
    run(
        """
import torchvision
part = sys.modules["torchvision.part"]
assert import_torchvision() is torchvision and torchvision.READY
assert sys.modules["torchvision.part"] is part
assert not declared()
""",
        path,
    )


def test_error_that_the_mend_does_not_cure(tmp_path: Path) -> None:
    """The same error a second time is the user's to see, and so is a missing package."""
    path = stub(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')")
    run(
        """
for _ in range(2):
    try:
        import_torchvision()
    except RuntimeError as error:
        assert "torchvision::nms" in str(error)
    else:
        raise AssertionError("no error")
sys.modules["torchvision"] = None
try:
    import_torchvision()
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("no error")
""",
        path,
    )
