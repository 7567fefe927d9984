"""Types and shapes of signatures, checked in every call of a test.

jaxtyping binds the arguments of each call, so that sizes that stand in two places are compared. A function without
arrays in its signature has none: beartype alone checks it, in a tenth of the time.
"""

import functools
import inspect
from collections.abc import Callable

import jaxtyping

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, violation_type=TypeError))"
"""An int where a float is annotated is no mistake (PEP 484). What is wrong is a TypeError, as where nobody checks."""
with_shapes = jaxtyping.jaxtyped


def checked(function: object = None, *, typechecker: Callable) -> Callable:
    """Stand in for `jaxtyping.jaxtyped`."""
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return with_shapes(function, typechecker=typechecker)
    annotations = function.__annotations__.values()
    if any(isinstance(each, str) or "jaxtyping." in repr(each) for each in annotations):
        return with_shapes(function, typechecker=typechecker)
    if not annotations:
        return function
    strict = typechecker(function)

    @functools.wraps(function)
    def call(*arguments: object, **named: object) -> object:
        return (function if jaxtyping.config.jaxtyping_disable else strict)(*arguments, **named)

    return call


def check_types() -> None:
    """Check `pixelwise`, which nobody has imported yet."""
    jaxtyping.jaxtyped = checked
    jaxtyping.install_import_hook("pixelwise", CHECKER)
