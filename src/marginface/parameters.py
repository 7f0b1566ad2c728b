"""Parameters given by name: unknown, mistyped and out-of-range ones as clear errors."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from marginface.errors import InputError, did_you_mean

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Ranks = Annotated[Sequence[WholeNumber], Field(min_length=1)]  # of identification
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]  # of a whole, not nothing


def check_parameters(
    what: str, target: type[Any], given: dict[str, Any], known: Iterable[str]
) -> None:
    """InputError for the first of `given` that `target` does not take, or not with this value.

    Args:
        what: the thing with parameters, for the message: "head 'arcface'".
        target: the class whose constructor's annotations hold.
        given: parameters by name.
        known: names that may be given.
    """
    known = list(known)
    accepts = f"It accepts: {', '.join(known) or 'none'}"
    kinds = get_type_hints(target.__init__, include_extras=True)
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"{what} has no parameter {key!r}.{did_you_mean(key, known)} {accepts}"
            )
        try:
            TypeAdapter(kinds.get(key, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[-1]["msg"].lower()
            raise InputError(f"{what}: {key}={value!r}: {reason}. {accepts}") from None
