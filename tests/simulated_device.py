"""A CUDA device that computes on the CPU, and records what would have crossed the bus or stopped the caller.

Torch's own pieces see tensors of the CPU, so that gradients, generators and threads work as always; Python code sees
`device="cuda:0"`, because every call of torch passes through `_call`. There the rules of CUDA hold: operands of two
devices raise, a device tensor does not become an array, copies and waits are noted. What runs inside of one call of
torch is torch's own and follows its rules, not these.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
    pytest.skip("the simulated device is built on what newer releases of torch have inside", allow_module_level=True)

CUDA = torch.device("cuda:0")
CPU = torch.device("cpu")
HostGenerator = torch.Generator


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# where a scalar of the CPU is no operand
STRICT = _names(
    "matmul __matmul__ __rmatmul__ mm bmm mv dot addmm baddbmm linear bilinear einsum tensordot gather scatter "
    "scatter_ scatter_add scatter_add_ index_select index_add index_add_ index_copy index_copy_ cat stack concat "
    "embedding take_along_dim conv2d scaled_dot_product_attention cholesky_solve solve_triangular solve bincount "
    "batch_norm layer_norm cross_entropy nll_loss"
)
# each reads a number of elements, or an element, back from the device
WAITING = _names(
    "aten._local_scalar_dense aten.nonzero aten.masked_select aten._unique2 aten.unique_dim aten.unique_consecutive "
    "aten.bincount aten.equal aten._linalg_eigh aten._linalg_svd aten._linalg_check_errors aten.multinomial "
    "aten.histc"
)
FACTORIES = _names(
    "tensor as_tensor zeros ones empty full arange linspace logspace eye rand randn randint randperm scalar_tensor "
    "empty_strided zeros_like ones_like empty_like full_like rand_like randn_like new_tensor new_zeros new_ones "
    "new_empty new_full from_numpy tril_indices triu_indices"
)
CONVERSIONS = _names("numpy __array__ __dlpack__ __reduce_ex__ __reduce__")
MIXED = (
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (simulated; in {})"
)


@dataclass
class Event:
    """One thing that a device was asked to do.

    Attributes
    ----------
    kind : {"to_device", "to_host", "wait", "launch", "mixed", "conversion", "pin", "record_stream"}
    name : str
        The call, or the operator.
    n_bytes : int
        Of a copy.
    pinned : bool
        Whether the host's side of a copy is pinned and the caller goes on at once.
    stream : int
        The stream that it was given to; 0 is the default.
    place : str
        File and line of the code of skxma that asked for it.
    """

    kind: str
    name: str
    n_bytes: int = 0
    pinned: bool = False
    stream: int = 0
    place: str = ""


@dataclass
class Device:
    """The state of the simulated device.

    Attributes
    ----------
    events : list of Event
        All but launches of operators, unless `with_launches`.
    n_launches : int
        Operators that ran.
    capacity : int or None
        Bytes; a tensor that does not fit raises torch's error.
    """

    events: list[Event] = field(default_factory=list)
    n_launches: int = 0
    capacity: int | None = None
    with_launches: bool = False
    compute_capability: tuple[int, int] = (9, 0)
    in_use: int = 0
    caches_emptied: int = 0
    waited_for: dict[tuple[int, int], int] = field(default_factory=dict)
    _storages: dict[int, int] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def note(self, kind: str, name: str, n_bytes: int = 0, pinned: bool = False) -> None:
        """Record an event."""
        self.events.append(Event(kind, name, n_bytes, pinned, _current.stream, _place()))

    def count(self, kind: str) -> int:
        """Number of events of a kind."""
        return sum(event.kind == kind for event in self.events)

    def n_bytes(self, kind: str) -> int:
        """Bytes of the copies in one direction."""
        return sum(event.n_bytes for event in self.events if event.kind == kind)

    @property
    def n_waits(self) -> int:
        """Number of times that the caller waited for the device, copies to pageable memory of the host included."""
        return self.count("wait") + sum(event.kind == "to_host" and not event.pinned for event in self.events)

    def reset(self) -> None:
        """Forget all events."""
        self.events.clear()
        self.waited_for.clear()
        self.n_launches = 0

    def hold(self, tensor: DeviceTensor) -> None:
        """Account for a tensor's memory until it is gone."""
        if self.capacity is None:
            return
        storage = tensor.inside.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        with self._lock:
            if key not in self._storages:
                if self.in_use + size > self.capacity:
                    free = self.capacity - self.in_use
                    raise torch.cuda.OutOfMemoryError(
                        f"CUDA out of memory. Tried to allocate {size} bytes. GPU 0 has a total capacity of "
                        f"{self.capacity} bytes of which {free} are free. (simulated)"
                    )
                self.in_use += size
                self._storages[key] = 0
            self._storages[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        with self._lock:
            self._storages[key] -= 1
            if not self._storages[key]:
                del self._storages[key]
                self.in_use -= size


class _Current(threading.local):
    stream = 0


_device: Device | None = None
_current = _Current()
_numbers = itertools.count(1)


def _place() -> str:
    frame = sys._getframe(2)
    while frame is not None and "/skxma/" not in frame.f_code.co_filename.replace("\\", "/"):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


class DeviceTensor(torch.Tensor):
    """A tensor that says that it is on "cuda:0", around one of the CPU."""

    inside: torch.Tensor
    copied: tuple[int, int] | None = None

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> DeviceTensor:
        assert type(inside) is torch.Tensor
        # of a tensor that is not of the inference mode, views must not be of it either
        with torch._C._InferenceMode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inside.size(),
                strides=inside.stride(),
                storage_offset=inside.storage_offset(),
                dtype=inside.dtype,
                layout=inside.layout,
                device=CPU,
            )
        made.inside = inside
        if _device is not None:
            _device.hold(made)
        return made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _dispatch(func, args, kwargs or {})


class Simulation(TorchFunctionMode):
    """Lets every call of torch in a thread pass through `_call`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def is_on_device(value: Any) -> bool:
    """Whether something is a tensor of the simulated device."""
    return isinstance(value, DeviceTensor)


def inner(value: Any) -> Any:
    """What is inside of a device's tensor, or of all in a list, a tuple or a dictionary."""
    if isinstance(value, DeviceTensor):
        return value.inside
    if isinstance(value, (list, tuple)):
        return _like(value, [inner(part) for part in value])
    if isinstance(value, dict):
        return {key: inner(part) for key, part in value.items()}
    return value


def _like(value: Any, parts: list[Any]) -> Any:
    if type(value) in (list, tuple):
        return type(value)(parts)
    # named results of torch take a tuple, other named tuples their fields
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _tensors(value: Any, found: list[torch.Tensor]) -> list[torch.Tensor]:
    """Collect the tensors among arguments."""
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _tensors(part, found)
    elif isinstance(value, dict):
        for part in value.values():
            _tensors(part, found)
    elif isinstance(value, slice):
        _tensors((value.start, value.stop, value.step), found)
    return found


@dataclass(frozen=True)
class Operator:
    """What the simulation knows of an operator.

    Attributes
    ----------
    written : tuple of int, str or None
        For each result the argument that it is, by place or by name; None where it is new.
    """

    name: str
    waits: bool
    waits_for_mask: bool
    is_repeat: bool
    changes_shape: bool
    is_composite: bool
    written: tuple[int | str | None, ...]


@functools.cache
def _operator(func: Any) -> Operator:
    schema, name = func._schema, str(func).rpartition(".")[0]
    aliases: dict[str, int | str] = {}
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            for alias in argument.alias_info.before_set:
                aliases[alias] = argument.name if argument.kwarg_only else place
    written = []
    for result in schema.returns:
        info = result.alias_info
        names = [] if info is None or not info.is_write else list(info.before_set)
        written.append(aliases.get(names[0]) if names else None)
    return Operator(
        name,
        name in WAITING,
        name in ("aten.index", "aten.index_put", "aten.index_put_"),
        name == "aten.repeat_interleave",
        torch.Tag.inplace_view in func.tags,
        torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"),
        tuple(written),
    )


def _dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on what is inside of its operands; note where the caller would wait for it."""
    operator = _operator(func)
    if operator.is_composite:
        # the inference mode does not take it apart before it comes here
        return func.decompose(*args, **kwargs)
    if _device is not None:
        _device.n_launches += 1
        if _device.with_launches:
            _device.note("launch", operator.name)
        if operator.waits or (operator.is_repeat and kwargs.get("output_size") is None):
            _device.note("wait", operator.name)
        elif operator.waits_for_mask and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            _device.note("wait", f"{operator.name} with a mask")
    out = func(*inner(args), **inner(kwargs))
    several = len(operator.written) > 1
    results = list(out) if several else [out]
    for i, argument in enumerate(operator.written):
        if argument is None:
            results[i] = _marked(results[i])
            continue
        given = kwargs[argument] if isinstance(argument, str) else args[argument]
        if operator.changes_shape:
            with no_dispatch():
                func(*args, **kwargs)
        if isinstance(given, DeviceTensor):
            assert given.shape == given.inside.shape, f"{operator.name} changes a shape, which is not simulated"
        results[i] = given
    return _like(out, results) if several else results[0]


def _marked(value: Any) -> Any:
    """Results of torch's inside, as tensors of the device."""
    if type(value) is torch.Tensor:
        assert not value.requires_grad, "a gradient would be lost"
        return DeviceTensor(value)
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return _like(value, [_marked(part) for part in value])
    return value


def _raw(func: Any, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _device_of(value: Any) -> torch.device | None:
    """A `device` argument; None where there is none."""
    if value is None or isinstance(value, torch.device):
        return value
    return torch.device("cuda", value) if isinstance(value, int) else torch.device(value)


def _to_device(tensor: torch.Tensor, name: str, non_blocking: bool = False) -> DeviceTensor:
    assert not (tensor.requires_grad and torch.is_grad_enabled()), "a gradient would be lost"
    pinned = bool(getattr(tensor, "is_pinned_here", False))
    if _device is not None:
        _device.note("to_device", name, tensor.nbytes, pinned and non_blocking)
    made = DeviceTensor(tensor.detach().clone())
    if _device is not None:
        made.copied = _current.stream, len(_device.events)
    return made


def _to_host(tensor: DeviceTensor, name: str, non_blocking: bool = False) -> torch.Tensor:
    if _device is not None:
        _device.note("to_host", name, tensor.inside.nbytes, non_blocking)
    copied = tensor.inside.detach().clone()
    # so that .numpy() asks for detach(), as it does on a real device
    return copied.requires_grad_() if _requires_grad(tensor) else copied


def _requires_grad(tensor: torch.Tensor) -> bool:
    return bool(_raw(torch.Tensor.requires_grad.__get__, (tensor,), {}))


def _move(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """`to`, `cpu` and `cuda`: a copy in either direction, or the plain conversion of a type."""
    tensor, rest = args[0], list(args[1:])
    kwargs = dict(kwargs)
    target = {"cpu": CPU, "cuda": CUDA}.get(name)
    if name == "to":
        if rest and isinstance(rest[0], torch.Tensor):
            like = rest.pop(0)
            target, kwargs["dtype"] = CUDA if is_on_device(like) else CPU, like.dtype
        elif rest and (rest[0] is None or isinstance(rest[0], (str, torch.device, int))):
            target = _device_of(rest.pop(0))
            # in C++ the other arguments come by place only after the device
            for key, value in zip(("dtype", "non_blocking", "copy"), rest, strict=False):
                kwargs[key] = value
            rest = []
        if "other" in kwargs:
            like = kwargs.pop("other")
            target, kwargs["dtype"] = CUDA if is_on_device(like) else CPU, like.dtype
        if kwargs.get("device") is not None:
            target = _device_of(kwargs["device"])
        kwargs.pop("device", None)
    else:
        rest = []
        kwargs = {key: value for key, value in kwargs.items() if key == "non_blocking"}
    non_blocking = bool(kwargs.pop("non_blocking", False))
    on_device = is_on_device(tensor)
    crosses = target is not None and (target.type == "cuda") != on_device
    if target is not None and target.type == "cuda" and target.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal (simulated)")
    if crosses and on_device:
        copied = _to_host(tensor, name, non_blocking)
        return _raw(torch.Tensor.to, (copied, *rest), kwargs) if rest or kwargs else copied
    if rest or kwargs:
        # torch converts before it copies
        tensor = _raw(torch.Tensor.to, (tensor, *rest), kwargs)
    return _to_device(tensor, name, non_blocking) if crosses else tensor


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    # of a property, the getter is a method of the descriptor
    return f"get {func.__self__.__name__}" if name == "__get__" else name


PROPERTIES: dict[str, Any] = {"device": CUDA, "is_cuda": True, "is_cpu": False}
METHODS: dict[str, Callable[[Any], Any]] = {
    "get_device": lambda tensor: 0,
    "is_pinned": lambda tensor: False,
    "tolist": lambda tensor: _to_host(tensor, "tolist").detach().tolist(),
    "__deepcopy__": lambda tensor: DeviceTensor(tensor.inside.clone()),
    "__repr__": lambda tensor: f"simulated {tensor.inside!r}",
}


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """Run one call of torch under the rules of a device."""
    name = _name(func)
    tensors = _tensors((args, kwargs), [])
    on_device = [tensor for tensor in tensors if is_on_device(tensor)]
    if name == "pin_memory" and not on_device:
        return _pin(args[0])
    if name == "is_pinned" and not on_device:
        return bool(getattr(args[0], "is_pinned_here", False))
    if name == "_parse_to":
        return _raw(func, args, kwargs)
    if name in ("to", "cpu", "cuda") and tensors and isinstance(args[0], torch.Tensor):
        for tensor in on_device:
            _check_order(name, tensor)
        return _move(func, name, args, kwargs)
    wanted = _device_of(kwargs.get("device"))
    if not on_device and (wanted is None or wanted.type != "cuda"):
        return _raw(func, args, kwargs)
    if name.startswith("get ") and name[4:] in PROPERTIES:
        return PROPERTIES[name[4:]]
    if name == "_has_compatible_shallow_copy_type":
        # a module gets new parameters, where a real device would change what is in them
        return False
    if name == "__set__" and func.__self__.__name__ == "data":
        _raw(func, args, kwargs)
        args[0].inside = args[1].inside
        return None
    if name in METHODS and is_on_device(args[0]):
        return METHODS[name](args[0])
    if name in CONVERSIONS and on_device:
        _device.note("conversion", name)
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
            "first. (simulated)"
        )
    for tensor in on_device:
        _check_order(name, tensor)
    _check_generator(name, kwargs)
    if wanted is not None or name in FACTORIES:
        return _make(func, name, args, kwargs, wanted)
    if name in ("copy_", "__setitem__"):
        args = _with_copied_value(name, args)
    elif name == "__getitem__":
        args = _with_moved_indices(name, args)
    elif len(on_device) < len(tensors):
        _check_mixture(name, tensors)
    out = _raw(func, args, kwargs)
    return _marked(out)


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    if _device is not None:
        _device.note("pin", "pin_memory", tensor.nbytes)
    pinned = tensor.clone()
    pinned.is_pinned_here = True
    return pinned


def _make(func: Any, name: str, args: Any, kwargs: Any, wanted: torch.device | None) -> Any:
    """Run a factory; what it makes from numbers of the host is copied to the device."""
    kwargs = {key: value for key, value in kwargs.items() if key != "device"}
    given = args[0] if args else None
    from_values = name in ("tensor", "as_tensor", "new_tensor")
    data = (args[1] if name == "new_tensor" else given) if from_values else None
    on_device = wanted.type == "cuda" if wanted is not None else is_on_device(data if from_values else given)
    if name == "new_tensor":
        on_device = is_on_device(given) if wanted is None else on_device
    if is_on_device(data):
        return _move(torch.Tensor.to, "to", (data,), {**kwargs, "device": CUDA if on_device else CPU})
    if from_values:
        for _ in filter(is_on_device, _tensors(data, [])):
            _device.note("wait", f"{name} of tensors")
    out = _raw(func, inner(args), inner(kwargs))
    if not on_device:
        return out
    requires_grad = out.requires_grad
    made = _to_device(out.detach(), name) if from_values else DeviceTensor(out.detach())
    return made.requires_grad_() if requires_grad else made


def _check_order(name: str, tensor: DeviceTensor) -> None:
    """Refuse a tensor that another stream copies, before this one has waited for that."""
    if tensor.copied is None or tensor.copied[0] == _current.stream:
        return
    stream, event = tensor.copied
    if _device.waited_for.get((_current.stream, stream), 0) < event:
        _device.note("mixed", name)
        raise RuntimeError(f"{name} reads what another stream is still copying (simulated)")


def _check_generator(name: str, kwargs: Any) -> None:
    generator = kwargs.get("generator")
    if isinstance(generator, HostGenerator) and not isinstance(generator, DeviceGenerator):
        _device.note("mixed", name)
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu' (simulated)")


def _check_mixture(name: str, tensors: list[torch.Tensor]) -> None:
    """Raise as CUDA does, unless the operands of the CPU are numbers, or zeros that autograd made for no gradient."""
    for tensor in tensors:
        if is_on_device(tensor):
            continue
        if tensor.dim() == 0 and name not in STRICT:
            continue
        if torch._C._current_graph_task_id() != -1 and not tensor.any():
            continue
        _device.note("mixed", name)
        raise RuntimeError(MIXED.format(name))


def _with_copied_value(name: str, args: Any) -> Any:
    """`copy_` and `__setitem__` copy between devices, but for values at indices that are tensors."""
    target, value = args[0], args[-1]
    crosses = isinstance(value, torch.Tensor) and is_on_device(value) != is_on_device(target)
    if crosses and name == "__setitem__" and value.dim() and _tensors(args[1], []):
        _device.note("mixed", name)
        raise RuntimeError(MIXED.format(name))
    if crosses:
        value = _to_device(value, name) if is_on_device(target) else _to_host(value, name)
    args = (*args[:-1], value)
    return _with_moved_indices(name, args) if name == "__setitem__" else args


def _with_moved_indices(name: str, args: Any) -> Any:
    """Indices of the CPU are copied to the device, those of the device select nothing on the CPU."""
    target = args[0]

    def moved(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return _like(part, [moved(one) for one in part])
        if not isinstance(part, torch.Tensor) or is_on_device(part) == is_on_device(target):
            return part
        if is_on_device(part):
            _device.note("mixed", name)
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu) (simulated)"
            )
        return _to_device(part, f"an index of {name}") if part.dim() else part

    return (target, moved(args[1]), *args[2:])


class DeviceGenerator(HostGenerator):
    """A generator of the device."""

    device = CUDA


class _EitherGenerator(type):
    """Makes generators of the host, or of the device."""

    def __call__(cls, device: Any = "cpu") -> HostGenerator:
        return (DeviceGenerator if _device_of(device).type == "cuda" else HostGenerator)()

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, HostGenerator)


class Generator(metaclass=_EitherGenerator):
    """Stands for `torch.Generator`."""


class _Stream:
    """A stream, or an event on one; the CPU has done all work at once."""

    def __init__(self, *args: Any, number: int | None = None, **kwargs: Any) -> None:
        self.number = next(_numbers) if number is None else number

    def wait_stream(self, other: Any) -> None:
        _device.waited_for[self.number, other.number] = len(_device.events)

    def wait_event(self, event: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or _Stream()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _device.note("wait", "synchronize")


@contextmanager
def _on_stream(stream: Any) -> Iterator[None]:
    before, _current.stream = _current.stream, getattr(stream, "number", 0)
    try:
        yield
    finally:
        _current.stream = before


@contextmanager
def simulated_device(**settings: Any) -> Iterator[Device]:
    """Let torch have one CUDA device, in all threads, as long as the context lasts."""
    global _device
    device = _device = Device(**settings)

    def mem_get_info(_: Any = None) -> tuple[int, int]:
        total = device.capacity or 2**36
        return total - device.in_use, total

    def empty_cache() -> None:
        device.caches_emptied += 1

    def synchronize(_: Any = None) -> None:
        device.note("wait", "synchronize")

    default = _Stream(number=0)
    run = threading.Thread.run

    def run_in_simulation(thread: threading.Thread) -> None:
        with Simulation():
            run(thread)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_capability": lambda _=None: device.compute_capability,
            "get_device_name": lambda _=None: "simulated device",
            "is_bf16_supported": lambda *_, **__: True,
            "mem_get_info": mem_get_info,
            "empty_cache": empty_cache,
            "synchronize": synchronize,
            "Stream": _Stream,
            "Event": _Stream,
            "stream": _on_stream,
            "current_stream": lambda _=None: default,
            "default_stream": lambda _=None: default,
        }.items():
            patch.setattr(torch.cuda, name, value)
        if hasattr(torch, "accelerator"):
            # optimizers ask the driver whether it captures a graph, where torch is built for CUDA
            patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
        patch.setattr(torch, "Generator", Generator)
        # its binding takes streams of CUDA alone
        patch.setattr(
            torch.Tensor, "record_stream", lambda tensor, stream: device.note("record_stream", "record_stream")
        )
        patch.setattr(threading.Thread, "run", run_in_simulation)
        try:
            with Simulation():
                yield device
        finally:
            _device = None
