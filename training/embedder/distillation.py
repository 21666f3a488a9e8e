"""Distillation: the student's embedding is drawn to a teacher's, whose embeddings are computed once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.config import BadConfig
from training.data.pictures import BadData, digest_of_pictures
from training.embedder.backbones import backbone
from training.loop import checkpoint
from training.loop.agreement import by_the_first
from training.loop.distributed import ALONE, World, collect, split

CHUNK = 512  # faces between two writes of the teacher's answers; a multiple of a teacher's batch
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class Teacher(Protocol):
    """Whatever embeds faces and can be told from other teachers."""

    @property
    def dimension(self) -> int:
        """Of its embeddings."""

    @property
    def digest(self) -> str:
        """Hexadecimal, of what it computes with."""

    @property
    def path(self) -> Path | None:
        """The file that it was read from, if any."""

    def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB → float32 [n, dimension] unit vectors."""


def reference_input(crops: np.ndarray) -> np.ndarray:
    """uint8 [n, 112, 112, 3] RGB → float32 [n, 3, 112, 112], as the reference embedder expects it."""
    return np.ascontiguousarray(((crops.astype(np.float32) / 255 - _MEAN) / _STD).transpose(0, 3, 1, 2))


class ReferenceEmbedder:
    """The reference MobileFaceNet (ONNX, 128-d; ImageNet statistics): teacher and yardstick, never shipped."""

    dimension = 128

    def __init__(self, path: Path, threads: int = 2) -> None:
        self.path = path
        graph = onnx.load(path)
        graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"  # published for one face at a time
        self.session = _session(graph.SerializeToString(), threads)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def embed(self, crops: np.ndarray, batch: int = 1, *, progress: str | None = None) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB → float32 [n, 128] unit vectors, no flip.

        One face at a time is fastest on a CPU: 3.5 ms against 14.5 ms a face in batches of 16, which leave the cache.
        """
        parts = []
        for start in tqdm(
            range(0, len(crops), batch), desc=progress, disable=progress is None, mininterval=5
        ):
            picture = reference_input(crops[start : start + batch])
            parts.append(self.session.run(None, {"input0": picture})[0].reshape(-1, self.dimension))
        embedding = np.concatenate(parts)
        return embedding / np.linalg.norm(embedding, axis=1, keepdims=True)


class ServedTeacher:
    """A Facet embedder graph, such as a bundle's embedder.onnx: `image` uint8 in, unit `embedding` out."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        self.path = path
        self.session = _session(path.read_bytes(), threads)
        self.dimension = int(self.session.get_outputs()[0].shape[1])
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB → float32 [n, dimension] unit vectors, no flip."""
        faces = tqdm(range(len(crops)), desc=progress, disable=progress is None, mininterval=5)
        return np.concatenate([self.session.run(None, {"image": crops[i : i + 1]})[0] for i in faces])


class TorchTeacher:
    """A backbone of this package, say a larger one that was trained before; put into eval mode."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str = "cpu",
        batch: int = 64,
        path: Path | None = None,
    ) -> None:
        self.model, self.device, self.batch = model.eval().to(device), torch.device(device), batch
        self.path = path
        self.dimension = int(model.dimension)  # type: ignore[arg-type]
        weights = b"".join(of.cpu().numpy().tobytes() for of in model.state_dict().values())
        self.digest = hashlib.sha256(weights).hexdigest()

    @torch.inference_mode()
    def embed(self, crops: np.ndarray, *, progress: str | None = None) -> np.ndarray:
        """uint8 [n, 112, 112, 3] RGB → float32 [n, dimension] unit vectors, no flip."""
        starts = tqdm(
            range(0, len(crops), self.batch), desc=progress, disable=progress is None, mininterval=5
        )
        parts = [
            self.model(
                normalise(torch.from_numpy(np.ascontiguousarray(crops[i : i + self.batch])).to(self.device))
            )
            for i in starts
        ]
        return F.normalize(torch.cat(parts)).float().cpu().numpy()


def open_teacher(path: Path, threads: int = 2, device: torch.device | str = "cpu") -> Teacher:
    """A teacher by what the file is: a run's checkpoint (.pt), a Facet embedder's graph, or the reference embedder's.

    Raises BadConfig for a file that is none of them, UnreadableCheckpoint for a damaged checkpoint.
    """
    if not path.is_file():
        raise BadConfig(f"{path}: no such teacher; give the path of one")
    if path.suffix == ".pt":
        return _trained(path, device)
    try:
        takes = [of.name for of in onnx.load(path, load_external_data=False).graph.input][:1]
    except DecodeError as error:
        raise BadConfig(f"{path} is no ONNX graph: {error}") from error
    kinds: dict[str, type[ServedTeacher | ReferenceEmbedder]] = {
        "image": ServedTeacher,
        "input0": ReferenceEmbedder,
    }
    if not takes or takes[0] not in kinds:
        raise BadConfig(
            f"{path} takes {repr(takes[0]) if takes else 'nothing'}: a teacher is a run's checkpoint (.pt), a Facet "
            "embedder (`image`) or the reference embedder (`input0`)"
        )
    try:
        return kinds[takes[0]](path, threads)
    except Exception as error:  # ONNX Runtime's errors share no ancestor
        raise BadConfig(f"{path} is no teacher that ONNX Runtime can run: {error}") from error


def _trained(path: Path, device: torch.device | str) -> TorchTeacher:
    state = checkpoint.load(path, remedy="name another teacher")
    config = state.get("config", {})
    if state.get("kind") != "embedder" or not {"backbone", "dimension"} <= config.keys():
        raise BadConfig(f"{path} is no embedder's checkpoint of this version: it cannot teach")
    model = backbone(config["backbone"], config["dimension"])
    checkpoint.restore(state, path, "embedder", {"average": model}, "name another teacher")
    return TorchTeacher(model, device, path=path)


def _session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # a declared output shape may be for one face
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def normalise(crops: Tensor) -> Tensor:
    """uint8 [n, 112, 112, 3] RGB → float [n, 3, 112, 112] in −1 … 1 (the exported graph holds the same line)."""
    return (crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def teacher_targets(teacher: Teacher, crops: np.ndarray, cache: Path, world: World = ALONE) -> np.ndarray:
    """float32 [n, d] unit vectors: the teacher's view of each face and of its mirror image, summed.

    The sum is a better target than the face alone (FNMR at FMR 1e-3 on validation 16.9 % against 18.2 %). Kept in
    `cache`, under a name that changes with the teacher and with every picture; every rank asks for its share, and an
    interrupted run goes on from what it had. Raises BadConfig for a teacher whose answers are no numbers, BadData for a
    cache that cannot be read.
    """
    file = cache / f"teacher-{teacher.digest[:12]}-{digest_of_pictures(crops)[:12]}-{len(crops)}.npy"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{world.rank}-of-{world.size}{checkpoint.PARTIAL}")
        share = torch.from_numpy(_asked(teacher, crops, split(len(crops), world), own, quiet=not world.first))
        whole = collect(share.to(world.device), len(crops), world)

        def keep() -> None:
            with checkpoint.replacing(file) as out:
                np.save(out, whole.numpy())  # type: ignore[union-attr]

        by_the_first(keep, world)
        own.unlink()
    return _kept(file, (len(crops), teacher.dimension))


def _asked(teacher: Teacher, crops: np.ndarray, rows: range, file: Path, *, quiet: bool) -> np.ndarray:
    """float32 [len(rows), d]: the teacher's targets for these faces, appended to `file` as they come."""
    width = 4 * teacher.dimension
    with file.open("ab") as out:
        done = out.tell() // (CHUNK * width) * CHUNK
        out.truncate(done * width)
        with tqdm(total=len(rows), initial=done, desc="teacher", unit="face", disable=quiet) as bar:
            for start in rows[done::CHUNK]:
                faces = np.ascontiguousarray(crops[start : min(start + CHUNK, rows.stop)])
                total = teacher.embed(faces) + teacher.embed(np.ascontiguousarray(faces[:, :, ::-1]))
                with np.errstate(invalid="ignore"):  # `_kept` names what is no direction
                    target = total / np.linalg.norm(total, axis=1, keepdims=True)
                with checkpoint.writing(file):
                    out.write(target.astype(np.float32).tobytes())
                    out.flush()
                bar.update(len(faces))
    return np.fromfile(file, np.float32).reshape(-1, teacher.dimension)


def _kept(file: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        targets = np.asarray(np.load(file))
    except (ValueError, EOFError) as error:
        raise BadData(f"{file} cannot be read ({error}): delete it, the teacher is asked again") from error
    if targets.shape != shape:
        raise BadData(f"{file} holds {targets.shape}, not {shape}: delete it, the teacher is asked again")
    if not np.isfinite(targets).all():
        face = int(np.flatnonzero(~np.isfinite(targets).all(1))[0])
        raise BadConfig(f"the teacher's answer to face {face} is no direction: choose another teacher")
    return targets


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of 1 − cos over the batch, in 0–2. student, teacher: [n, d], any length."""
    return (1 - F.cosine_similarity(student.float(), teacher.float())).mean()


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """How differently student [n, d] and teacher [n, e] arrange the batch; any lengths, n ≥ 3.

    Relational distillation (Park et al. 2019, arXiv 1904.05068): the Huber loss between the pairwise distances of unit
    vectors, each in units of its mean, plus twice that between the cosines of the angles of all triplets.
    """
    if len(student) < 3:
        raise ValueError(f"relations need three faces or more, got {len(student)}")
    ours, theirs = F.normalize(student.float()), F.normalize(teacher.float())
    with torch.no_grad():
        apart, turned = _distances(theirs), _angles(theirs)
    return F.smooth_l1_loss(_distances(ours), apart) + 2 * F.smooth_l1_loss(_angles(ours), turned)


def _distances(unit: Tensor) -> Tensor:
    """[n · (n − 1) / 2] of all pairs, divided by their mean."""
    row, column = torch.triu_indices(len(unit), len(unit), 1)
    distance = (unit[row] - unit[column]).square().sum(1).clamp(min=1e-8).sqrt()
    return distance / distance.mean()


def _angles(unit: Tensor) -> Tensor:
    """[n, n, n] cosines of the angle at the first of three; 0 where two of them are one."""
    towards = F.normalize(unit[None] - unit[:, None], dim=2)
    return towards @ towards.transpose(1, 2)
