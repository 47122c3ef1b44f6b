"""Triton's interpreter, without what it does over again: half of its time. What it computes and checks stays as it is."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def hasten() -> None:
    """For the rest of this process. Read `TRITON_INTERPRET` before: the interpreter must be the one that runs."""
    from triton.runtime import interpreter

    _make_language_ready_once(interpreter)
    _know_types(interpreter)
    _look_for_overflow_at_once(interpreter)


def _make_language_ready_once(interpreter: Any) -> None:
    """A launch puts numpy's side in place of Triton's language and back; each device function that it calls does so again."""
    make_ready, languages = interpreter._patch_lang, (interpreter.tl, interpreter.tl.core)
    spoken: dict[FunctionType, list[Any]] = {}

    def once(function: FunctionType) -> Any:
        if function not in spoken:
            spoken[function] = [v for v in function.__globals__.values() if any(v is language for language in languages)]
        if all(language.range.__name__ == "_new_range" for language in spoken[function]):
            return interpreter._LangPatchScope()
        return make_ready(function)

    interpreter._patch_lang = once


def _know_types(interpreter: Any) -> None:
    """Each value makes a type of its own, with its name, its shape and the shape's type, and looks numpy's up in a table that it makes."""
    core = interpreter.tl.core
    find, name_block, shapes = interpreter._get_np_dtype, core.block_type.__init__, dict[tuple[int, ...], tuple[Any, Any]]()
    found: dict[tuple[Any, ...], Any] = {}
    blocks: dict[tuple[Any, ...], dict[str, Any]] = {}

    def named(dtype: Any) -> tuple[Any, ...]:
        """What tells it from others: of pointers there is no hash."""
        return type(dtype), dtype.name, getattr(dtype, "address_space", None)

    def found_once(dtype: Any) -> Any:
        key = named(dtype)
        if key not in found:
            found[key] = find(dtype)
        return found[key]

    def block(self: Any, element: Any, shape: Any) -> None:
        key = (*named(element), *(core._unwrap_if_constexpr(size) for size in shape))
        if key not in blocks:
            name_block(self, element, shape)
            blocks[key] = dict(self.__dict__)
        else:
            self.__dict__.update(blocks[key])

    def tensor(self: Any, handle: Any, dtype: Any) -> None:
        self.handle, self.type, self.dtype = handle, dtype, dtype.scalar
        sizes = tuple(dtype.shape) if dtype.is_block() else ()
        if sizes not in shapes:
            make_tensor(self, handle, dtype)
            shapes[sizes] = self.numel, self.shape
        self.numel, self.shape = shapes[sizes]

    make_tensor = core.tensor.__init__
    interpreter._get_np_dtype, core.block_type.__init__, core.tensor.__init__ = found_once, block, tensor


def _look_for_overflow_at_once(interpreter: Any) -> None:
    """Each sum and product of integers is computed again in 64 bits, by the interpreter itself, with five values of the language."""
    import numpy as np

    semantic = interpreter.TritonSemantic
    look, operations = semantic.binary_op_sanitize_overflow_impl, {"add": np.add, "sub": np.subtract, "mul": np.multiply}

    def look_at_once(self: Any, lhs: Any, rhs: Any, operation: Any) -> None:
        kind = lhs.type.scalar
        if kind.int_bitwidth < 64 and operation.__name__ in operations:
            exact = operations[operation.__name__](lhs.handle.data.astype(np.int64), rhs.handle.data.astype(np.int64))
            if exact.size and kind.get_int_min_value() <= exact.min() and exact.max() <= kind.get_int_max_value():
                return
        look(self, lhs, rhs, operation)

    semantic.binary_op_sanitize_overflow_impl = look_at_once
