"""The names of collective operations and of the algorithms that carry them out."""

from enum import StrEnum

from archsim.config.errors import UserError, listed, nearest_name


class Operation(StrEnum):
    """What a collective does with the devices' data."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"


class Algorithm(StrEnum):
    """Who sends what to whom, in which order. `auto` takes the fastest that link and operation allow."""

    AUTO = "auto"
    RING = "ring"
    TREE = "tree"
    RECURSIVE_DOUBLING = "recursive_doubling"
    DIRECT = "direct"
    ONE_SHOT = "one_shot"
    HIERARCHICAL = "hierarchical"
    IN_NETWORK = "in_network"


SCHEDULED = tuple(algorithm for algorithm in Algorithm if algorithm is not Algorithm.AUTO)
"""Every algorithm that `auto` may stand for, in the order in which equally fast ones are preferred."""

_ALIASES = {"alltoall": Operation.ALL_TO_ALL}


def operation_named(name: str) -> Operation:
    """The operation of that name; NCCL's own spelling "alltoall" too. Raises UserError with the nearest name."""
    if name in _ALIASES:
        return _ALIASES[name]
    try:
        return Operation(name)
    except ValueError:
        raise UserError(
            f"there is no collective '{name}'", expected=listed(Operation), nearest=nearest_name(name, Operation)
        ) from None


def algorithm_named(name: str) -> Algorithm:
    """The algorithm of that name. Raises UserError with the nearest name."""
    try:
        return Algorithm(name)
    except ValueError:
        raise UserError(
            f"there is no algorithm '{name}'", expected=listed(Algorithm), nearest=nearest_name(name, Algorithm)
        ) from None
