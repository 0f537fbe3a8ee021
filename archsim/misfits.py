"""Whether a model, its cache and its placement fit the system of an experiment: what a spec can't see by itself."""

from archsim.config.errors import Problem, UserError
from archsim.config.loading import LoadedSpec
from archsim.experiment_spec import ExperimentSpec, PhasesWorkload
from archsim.workload.context_parallel import check_context_parallel
from archsim.workload.shapes import ModelShape
from archsim.workload.shared_prefix import PrefixAttention
from archsim.workload.weights import check_tensor_parallel


def misfits(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Where model, workload and system contradict each other."""
    workload, devices = loaded.spec.workload, loaded.spec.system.devices
    path = "workload.tensor_parallel"
    problems = []
    try:
        check_tensor_parallel(model, workload.tensor_parallel)
    except UserError as error:
        problems.append(loaded.problem(path, error.message, error.expected, error.nearest))
    problems += _cache_misfits(loaded, model)
    if workload.tensor_parallel > devices:
        message = f"{workload.tensor_parallel} devices are wanted, the system has {devices}"
        problems.append(loaded.problem(path, message, f"at most {devices}"))
    return problems + _layers_beyond(loaded, model)


def _cache_misfits(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Why a shared prefix, or a cache that devices deal out, can't be laid out on these devices."""
    workload, has_pim = loaded.spec.workload, loaded.spec.system.device.pim is not None
    prefix = workload.shared_prefix
    paged = isinstance(workload, PhasesWorkload) and workload.kv_block_tokens is not None
    decode = workload.decode if isinstance(workload, PhasesWorkload) else None
    problems = []
    if prefix is not None and prefix.attention is PrefixAttention.PER_SEQUENCE and has_pim:
        message = "PIM lays out a cache of its own for each sequence, so it can't attend to a shared prefix"
        expected = "cascade, whose prefix attention is the device's"
        problems.append(loaded.problem("workload.shared_prefix.attention", message, expected))
    if prefix is not None and paged:
        message = "a shared prefix in a paged cache is not there yet"
        problems.append(loaded.problem("workload.shared_prefix", message, "shared_prefix or kv_block_tokens"))
    if decode is not None and decode.context_parallel > 1:
        path = "workload.decode.context_parallel"
        try:
            check_context_parallel(model, workload.tensor_parallel, decode.context_parallel)
        except UserError as error:
            problems.append(loaded.problem(path, error.message, error.expected, error.nearest))
        if has_pim or paged:
            message = f"devices can't deal out {'a paged cache' if paged else 'the cache that PIM attends to'} yet"
            problems.append(loaded.problem(path, message, "context_parallel: 1"))
    return problems


def _layers_beyond(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Placement rules for layers that the model does not have."""
    rules = loaded.spec.system.device.placement.rules
    return [
        loaded.problem(
            f"system.device.placement.rules[{index}].layers",
            f"{list(rule.layers)}, the model has {model.layers} layers",
            f"[first, last] from 0 to {model.layers - 1}",
        )
        for index, rule in enumerate(rules)
        if rule.layers is not None and rule.layers[1] >= model.layers
    ]
