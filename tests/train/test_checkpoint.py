"""Checkpoints: what comes back is what went in, or one line says why not."""

import errno
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from fastweights.train.checkpoint import MODEL_FILE, STATE_FILE, Checkpoints
from fastweights.train.errors import CheckpointError


def model(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 2), value), "bias": torch.arange(2).float() + value}


def state(value: float) -> dict[str, Any]:
    return {"run": {"step": 3, "x": value, "reason": None}, "generator": torch.get_rng_state()}


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    """Step 1, the best; step 2, the last."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, model(1.0), state(1.0), best=True)
    checkpoints.save(2, model(2.0), state(2.0), best=False)
    return checkpoints


def folders(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir() if path.is_dir())


def test_last_and_best_come_back(saved: Checkpoints) -> None:
    for which, step in (("last", 2), ("best", 1)):
        checkpoint = saved.load(which)  # type: ignore[arg-type]
        assert checkpoint.step == step
        torch.testing.assert_close(checkpoint.model, model(float(step)), rtol=0, atol=0)
        assert checkpoint.training_state["run"] == {"step": 3, "x": float(step), "reason": None}
        assert checkpoint.training_state["generator"].equal(torch.get_rng_state())


def test_only_last_and_best_are_kept(saved: Checkpoints) -> None:
    saved.save(3, model(3.0), state(3.0), best=False)
    assert folders(saved) == ["step_00000001", "step_00000003"]
    saved.save(4, model(4.0), state(4.0), best=True)
    assert folders(saved) == ["step_00000004"]
    index = saved.index()
    assert (index["last"], index["best"]) == ("step_00000004", "step_00000004")
    assert len(index["checksums"]) == 2


def test_saving_a_step_again_keeps_it(saved: Checkpoints) -> None:
    saved.save(2, model(2.0), state(2.0), best=False)
    assert saved.load("last").step == 2
    assert saved.load("best").step == 1


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.exist()
    with pytest.raises(CheckpointError, match=r"index\.json: there is no checkpoint"):
        checkpoints.load("last")
    checkpoints.save(1, model(1.0), state(1.0), best=False)
    with pytest.raises(CheckpointError, match="there is no best checkpoint yet"):
        checkpoints.load("best")


@pytest.mark.parametrize("file", [MODEL_FILE, STATE_FILE])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_damage_is_named(saved: Checkpoints, file: str, damage: str) -> None:
    path = saved.folder / "step_00000002" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        damaged = {
            "truncated": content[: len(content) // 2],
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "empty": b"",
        }[damage]
        path.write_bytes(damaged)
    with pytest.raises(CheckpointError) as caught:
        saved.load("last")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert ("No such file" if damage == "missing" else "damaged: checksum") in message
    assert "\n" not in message
    assert saved.load("best").step == 1


def test_right_checksum_of_unreadable_content(saved: Checkpoints) -> None:
    """Damage before the checksum was taken: still one line."""
    import hashlib

    for file in (STATE_FILE, MODEL_FILE):
        name = f"step_00000002/{file}"
        (saved.folder / name).write_bytes(b"no such format")
        index = json.loads(saved.index_path.read_text())
        index["checksums"][name] = hashlib.sha256(b"no such format").hexdigest()
        saved.index_path.write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=f"{file}: damaged: ") as caught:
            saved.load("last")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", '{"last": "step_0', "[]", "{}", '{"last": null}'])
def test_a_damaged_index_is_named(saved: Checkpoints, content: str) -> None:
    saved.index_path.write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json: damaged: not a checkpoint index"):
        saved.load("last")
    with pytest.raises(CheckpointError, match="damaged"):
        saved.save(3, model(3.0), state(3.0), best=False)  # never a silent new start
    assert folders(saved) == ["step_00000001", "step_00000002"]


def refuse(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "place",
    [
        "fastweights.train.checkpoint._write_file",
        "fastweights.train.checkpoint.os.rename",
        "fastweights.atomic.os.replace",
    ],
)
def test_a_full_disk_leaves_what_was(
    saved: Checkpoints, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, refuse)
        with pytest.raises(CheckpointError) as caught:
            saved.save(3, model(3.0), state(3.0), best=True)
    assert str(caught.value) == (
        f"{saved.folder / 'step_00000003'}: cannot be written: No space left on device; "
        "step_00000002 is intact"
    )
    assert not [path for path in saved.folder.iterdir() if path.name.startswith(".")]
    assert (saved.load("last").step, saved.load("best").step) == (2, 1)
    saved.save(3, model(3.0), state(3.0), best=True)  # once there is space again
    assert folders(saved) == ["step_00000003"]


def test_what_a_crash_left_is_swept(saved: Checkpoints) -> None:
    (saved.folder / ".writing_abc").mkdir()
    stale = saved.folder / "step_00000003"  # renamed, but the index was never replaced
    stale.mkdir()
    (stale / MODEL_FILE).write_bytes(b"old")
    saved.save(3, model(3.0), state(3.0), best=False)
    assert folders(saved) == ["step_00000001", "step_00000003"]
    torch.testing.assert_close(saved.load("last").model, model(3.0))
