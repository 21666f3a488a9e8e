"""What may be asked of each verb and noun: names, types, bounds and defaults, and which pictures a verb takes.

Rule: types and bounds only. What two parameters mean together is decided below the doors, so that gRPC agrees.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Which = Literal["largest", "all"]
Slug = Annotated[str, Field(min_length=1, max_length=63, description="A gallery's id.")]
Identifier = Annotated[str, Field(min_length=1, max_length=128)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
ExternalId = Annotated[
    str, Field(min_length=1, max_length=200, description="The caller's own id; unique in a gallery.")
]
Metadata = Annotated[
    dict[str, Any], Field(description="The caller's own facts, returned as they were given.")
]
Similarity = Annotated[
    float,
    Field(ge=-1, le=1, allow_inf_nan=False, description="Raw cosine; instead of a target rate."),
]


class ParameterSet(BaseModel):
    """Parameters of one operation; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class VerbParameters(ParameterSet):
    """Parameters of a verb. `one_picture` and `many_pictures` name the picture fields that it knows."""

    one_picture: ClassVar[tuple[str, ...]] = ("image",)
    many_pictures: ClassVar[str | None] = None


class DetectParameters(VerbParameters):
    """`POST /v1/detect`"""

    min_score: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least detection score; default: the bundle's operating point.",
    )
    faces: Which = Field("all", description="`largest` lists the face with the largest width × height alone.")


class EmbedParameters(DetectParameters):
    """`POST /v1/embed`"""


class VerifyParameters(VerbParameters):
    """`POST /v1/verify`"""

    one_picture: ClassVar[tuple[str, ...]] = ("image_a", "image_b", "image")

    person_id: Identifier | None = Field(None, description="Compare `image` with this person's faces.")
    gallery: Slug = "default"
    fmr: float | None = Field(
        None, gt=0, lt=1, allow_inf_nan=False, description="Target false match rate; default 1e-4."
    )
    threshold: Similarity | None = None


class IdentifyParameters(VerbParameters):
    """`POST /v1/identify`"""

    gallery: Slug = "default"
    fpir: float | None = Field(
        None,
        gt=0,
        lt=1,
        allow_inf_nan=False,
        description="Target false positive identification rate; default 0.01.",
    )
    threshold: Similarity | None = None
    limit: int = Field(1, ge=1, le=100, description="Most persons listed for a face.")
    faces: Which = Field("largest", description="Which faces are searched.")
    candidates: bool = Field(
        False, description="Also list the best others below the threshold (scope `admin`)."
    )


class EnrollParameters(VerbParameters):
    """`POST /v1/enroll`"""

    one_picture: ClassVar[tuple[str, ...]] = ()
    many_pictures: ClassVar[str | None] = "images"

    gallery: Slug = "default"
    person_id: Identifier | None = Field(None, description="Add to this person, who must exist.")
    name: Name | None = None
    external_id: ExternalId | None = None
    metadata: Metadata | None = None
    force: bool = Field(False, description="Enrol even when the face matches another person.")


class FacesParameters(VerbParameters):
    """`POST /v1/galleries/{gallery}/persons/{person}/faces`"""

    one_picture: ClassVar[tuple[str, ...]] = ()
    many_pictures: ClassVar[str | None] = "images"

    force: bool = Field(False, description="Enrol even when the face matches another person.")


class Body(ParameterSet):
    """A JSON body: types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NewGallery(Body):
    """A gallery to create; its id is the caller's choice."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", examples=["staff"])]
    name: Name | None = None
    metadata: Metadata | None = None


class GalleryChanges(Body):
    """What to change of a gallery; null clears."""

    name: Name | None = None
    metadata: Metadata | None = None


class NewPerson(Body):
    """A person without faces yet."""

    name: Name | None = None
    external_id: ExternalId | None = None
    metadata: Metadata | None = None


class PersonChanges(Body):
    """What to change of a person; null clears."""

    name: Name | None = None
    external_id: ExternalId | None = None
    metadata: Metadata | None = None


class NewApiKey(Body):
    """A key to create."""

    name: Name
    scopes: Annotated[list[str], Field(min_length=1, max_length=16)]


class PageQuery(ParameterSet):
    """A page of a list: continue with the `next_cursor` of the page before."""

    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=512)


class PersonQuery(PageQuery):
    """Persons, all of them or the one with an external id."""

    external_id: ExternalId | None = None
