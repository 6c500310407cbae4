"""What `carbseg explore` would serve, asked without a network."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from labelgen.layout import StoreLayout
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.suspicion import won_shares
from pipeline.explorer.app import build_app
from pipeline.explorer.session import Session
from tests.conftest import carbseg

Asker = Callable[..., "Client"]


class Client(TestClient):
    """Asks for addresses of the contract."""

    def ok(self, address: str, data: Any = None) -> Any:
        """The JSON of an answer that is no error."""
        answer = self._asked(address, data)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def error(self, address: str, data: Any = None, status: int = 400) -> str:
        """The one line of an error."""
        answer = self._asked(address, data)
        assert answer.status_code == status, answer.text
        line: str = answer.json()["error"]
        assert line
        assert "\n" not in line
        return line

    def _asked(self, address: str, data: Any) -> Any:
        if data is None:
            return self.get(address)
        return self.post(address, content=json.dumps(data), headers={"Content-Type": "application/json"})

    def picture(self, address: str) -> NDArray[np.uint8]:
        """(H, W) grey values, or (H, W, 3)."""
        answer = self.get(address)
        assert answer.status_code == 200, answer.text
        pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        return pixels.astype(np.uint8)

    def finished(self, job: str) -> Any:
        """The result of a job."""
        while (now := self.ok(f"/api/jobs/{job}"))["state"] == "running":
            time.sleep(0.01)
        assert now["state"] == "done", now["error"]
        return now["result"]


def session_of(*arguments: object) -> Session:
    """What `carbseg explore` would serve."""
    with patch("pipeline.explorer.server.serve") as serve:
        carbseg("explore", *arguments, "--no-browser")
    session: Session = serve.call_args.args[0]
    return session


def run_folder(folder: Path, stores: Path) -> Path:
    """A run folder of its own with the stores' labels, to be written to."""
    shutil.copytree(stores, folder / "labels", ignore=shutil.ignore_patterns("run.json", "*.npz"))
    return folder


def begun(path: Path, ids: list[str], names: tuple[str, ...] = ("sky", "car"), **about: Any) -> PseudoLabelStore:
    """An empty store, two images a shard."""
    C = len(names)
    layout = StoreLayout(ids, np.eye(C, 16, dtype=np.float32), [(3, 4)], (2, 2), 1, images_per_shard=2)
    provenance = {
        "dataset": "toy",
        "split": path.stem,
        "clip_id": "tiny",
        "classes": {"names": names, "prompts": [[name] for name in names], "palette": [(9, 9, 9)] * C},
        "labels": {"templates": ["{}."], "dtype": "float32"},
        "clip": {"weights_sha256": "of another CLIP"},
        "image_labels": {"source": "data", "min_area": 0.0, "file": ""},
    }
    return PseudoLabelStore.create(path, layout, provenance | about)


def write(store: PseudoLabelStore, rows: range) -> None:
    logits = np.zeros((len(store.class_names), 2, 2), np.float32)
    logits[0] = 1
    views = [LocalView((0, 0, 8, 8), 1.0, logits)]
    images = [ImageLogits(store.image_ids[row], (8, 8), [0, 1], [logits], views) for row in rows]
    store.write_shard(rows, images)


@pytest.fixture
def ask() -> Iterator[Asker]:
    """Begins to explore, with the arguments of the command."""
    sessions = []

    def begin(*arguments: object) -> Client:
        sessions.append(session_of(*arguments))
        return Client(build_app(sessions[-1]))

    yield begin
    for session in sessions:
        session.close()


@pytest.fixture
def toy(toy_stores: Path, toy_root: Path, tmp_path: Path) -> tuple[object, ...]:
    """Arguments of `explore`, for a run of its own with 3 images that have truth."""
    return run_folder(tmp_path / "run", toy_stores), "--data-root", toy_root, "--split", "val"


@pytest.fixture
def forgetful(toy_stores: Path, toy_root: Path, clip_folder: Path, tmp_path: Path) -> tuple[object, ...]:
    """The same, of a run whose image-level labels forget in the first image the class that wins most of it."""
    store = PseudoLabelStore.open(toy_stores / "val.zarr")
    forgotten = store.class_names[won_shares(store.global_logits(store.image_ids[0])).argmax()]
    rows = [f"{image_id}.png,{';'.join(store.class_names)}" for image_id in store.image_ids]
    rows[0] = rows[0].replace(f"{forgotten};", "")
    tags = tmp_path / "tags.csv"
    tags.write_text("\n".join(["image,labels", *rows]))
    options = ("--dataset", "toy", "--data-root", toy_root, "--split", "val", "--clip", clip_folder, "--tags", tags)
    carbseg("labels", *options, "--out", tmp_path / "run")
    return tmp_path / "run", "--data-root", toy_root, "--split", "val"
