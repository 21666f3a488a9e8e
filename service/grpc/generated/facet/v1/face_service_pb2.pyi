from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageSize(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Gallery(_message.Message):
    __slots__ = ("id", "size", "revision", "templates")
    ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    TEMPLATES_FIELD_NUMBER: _ClassVar[int]
    id: str
    size: int
    revision: int
    templates: int
    def __init__(self, id: _Optional[str] = ..., size: _Optional[int] = ..., revision: _Optional[int] = ..., templates: _Optional[int] = ...) -> None: ...

class Person(_message.Message):
    __slots__ = ("id", "name", "external_id", "metadata")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    external_id: str
    metadata: _struct_pb2.Struct
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., external_id: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("image", "min_score", "faces")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    min_score: float
    faces: str
    def __init__(self, image: _Optional[bytes] = ..., min_score: _Optional[float] = ..., faces: _Optional[str] = ...) -> None: ...

class DetectedFace(_message.Message):
    __slots__ = ("box", "landmarks", "score", "quality")
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BOX_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    box: Box
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    score: float
    quality: _containers.ScalarMap[str, float]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., score: _Optional[float] = ..., quality: _Optional[_Mapping[str, float]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("request_id", "image", "model_id", "timings_ms", "faces")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: ImageSize
    model_id: str
    timings_ms: _containers.ScalarMap[str, float]
    faces: _containers.RepeatedCompositeFieldContainer[DetectedFace]
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., model_id: _Optional[str] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., faces: _Optional[_Iterable[_Union[DetectedFace, _Mapping]]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("image", "min_score", "faces")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    min_score: float
    faces: str
    def __init__(self, image: _Optional[bytes] = ..., min_score: _Optional[float] = ..., faces: _Optional[str] = ...) -> None: ...

class EmbeddedFace(_message.Message):
    __slots__ = ("box", "landmarks", "score", "quality", "embedding")
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BOX_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    box: Box
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    score: float
    quality: _containers.ScalarMap[str, float]
    embedding: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., score: _Optional[float] = ..., quality: _Optional[_Mapping[str, float]] = ..., embedding: _Optional[_Iterable[float]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("request_id", "image", "model_id", "timings_ms", "embedding_space", "faces")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_SPACE_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: ImageSize
    model_id: str
    timings_ms: _containers.ScalarMap[str, float]
    embedding_space: str
    faces: _containers.RepeatedCompositeFieldContainer[EmbeddedFace]
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., model_id: _Optional[str] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., embedding_space: _Optional[str] = ..., faces: _Optional[_Iterable[_Union[EmbeddedFace, _Mapping]]] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("image_a", "image_b", "image", "person_id", "gallery", "fmr", "threshold")
    IMAGE_A_FIELD_NUMBER: _ClassVar[int]
    IMAGE_B_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PERSON_ID_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    FMR_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    image_a: bytes
    image_b: bytes
    image: bytes
    person_id: str
    gallery: str
    fmr: float
    threshold: float
    def __init__(self, image_a: _Optional[bytes] = ..., image_b: _Optional[bytes] = ..., image: _Optional[bytes] = ..., person_id: _Optional[str] = ..., gallery: _Optional[str] = ..., fmr: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("request_id", "model_id", "timings_ms", "decision", "similarity", "threshold", "fmr", "extrapolated")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FMR_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model_id: str
    timings_ms: _containers.ScalarMap[str, float]
    decision: str
    similarity: float
    threshold: float
    fmr: float
    extrapolated: bool
    def __init__(self, request_id: _Optional[str] = ..., model_id: _Optional[str] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., decision: _Optional[str] = ..., similarity: _Optional[float] = ..., threshold: _Optional[float] = ..., fmr: _Optional[float] = ..., extrapolated: bool = ...) -> None: ...

class EnrollRequest(_message.Message):
    __slots__ = ("images", "gallery", "person_id", "name", "external_id", "metadata", "force")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    PERSON_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedScalarFieldContainer[bytes]
    gallery: str
    person_id: str
    name: str
    external_id: str
    metadata: _struct_pb2.Struct
    force: bool
    def __init__(self, images: _Optional[_Iterable[bytes]] = ..., gallery: _Optional[str] = ..., person_id: _Optional[str] = ..., name: _Optional[str] = ..., external_id: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., force: bool = ...) -> None: ...

class EnrolledFace(_message.Message):
    __slots__ = ("id", "index", "box", "score", "quality")
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    id: str
    index: int
    box: Box
    score: float
    quality: _containers.ScalarMap[str, float]
    def __init__(self, id: _Optional[str] = ..., index: _Optional[int] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ..., quality: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("index", "reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class EnrollResponse(_message.Message):
    __slots__ = ("request_id", "gallery", "person", "faces", "rejected")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    gallery: Gallery
    person: Person
    faces: _containers.RepeatedCompositeFieldContainer[EnrolledFace]
    rejected: _containers.RepeatedCompositeFieldContainer[Rejected]
    def __init__(self, request_id: _Optional[str] = ..., gallery: _Optional[_Union[Gallery, _Mapping]] = ..., person: _Optional[_Union[Person, _Mapping]] = ..., faces: _Optional[_Iterable[_Union[EnrolledFace, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[Rejected, _Mapping]]] = ...) -> None: ...

class IdentifyRequest(_message.Message):
    __slots__ = ("image", "gallery", "fpir", "threshold", "limit", "faces", "candidates")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    FPIR_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    gallery: str
    fpir: float
    threshold: float
    limit: int
    faces: str
    candidates: bool
    def __init__(self, image: _Optional[bytes] = ..., gallery: _Optional[str] = ..., fpir: _Optional[float] = ..., threshold: _Optional[float] = ..., limit: _Optional[int] = ..., faces: _Optional[str] = ..., candidates: bool = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("person", "face_id", "similarity")
    PERSON_FIELD_NUMBER: _ClassVar[int]
    FACE_ID_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    person: Person
    face_id: str
    similarity: float
    def __init__(self, person: _Optional[_Union[Person, _Mapping]] = ..., face_id: _Optional[str] = ..., similarity: _Optional[float] = ...) -> None: ...

class IdentifiedFace(_message.Message):
    __slots__ = ("box", "landmarks", "score", "quality", "decision", "matches", "candidates")
    class QualityEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    BOX_FIELD_NUMBER: _ClassVar[int]
    LANDMARKS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    box: Box
    landmarks: _containers.RepeatedCompositeFieldContainer[Point]
    score: float
    quality: _containers.ScalarMap[str, float]
    decision: str
    matches: _containers.RepeatedCompositeFieldContainer[Match]
    candidates: _containers.RepeatedCompositeFieldContainer[Match]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., landmarks: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., score: _Optional[float] = ..., quality: _Optional[_Mapping[str, float]] = ..., decision: _Optional[str] = ..., matches: _Optional[_Iterable[_Union[Match, _Mapping]]] = ..., candidates: _Optional[_Iterable[_Union[Match, _Mapping]]] = ...) -> None: ...

class IdentifyResponse(_message.Message):
    __slots__ = ("request_id", "image", "gallery", "model_id", "timings_ms", "fpir", "fmr", "threshold", "extrapolated", "decision", "person", "similarity", "faces")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    GALLERY_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    FPIR_FIELD_NUMBER: _ClassVar[int]
    FMR_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    EXTRAPOLATED_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    FACES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: ImageSize
    gallery: Gallery
    model_id: str
    timings_ms: _containers.ScalarMap[str, float]
    fpir: float
    fmr: float
    threshold: float
    extrapolated: bool
    decision: str
    person: Person
    similarity: float
    faces: _containers.RepeatedCompositeFieldContainer[IdentifiedFace]
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., gallery: _Optional[_Union[Gallery, _Mapping]] = ..., model_id: _Optional[str] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., fpir: _Optional[float] = ..., fmr: _Optional[float] = ..., threshold: _Optional[float] = ..., extrapolated: bool = ..., decision: _Optional[str] = ..., person: _Optional[_Union[Person, _Mapping]] = ..., similarity: _Optional[float] = ..., faces: _Optional[_Iterable[_Union[IdentifiedFace, _Mapping]]] = ...) -> None: ...
