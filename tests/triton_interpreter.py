"""Triton's interpreter, without what it does over again: most of its time. What it computes and checks stays as it is."""

from __future__ import annotations

from types import FunctionType
from typing import Any


def hasten() -> None:
    """For the rest of this process. Read `TRITON_INTERPRET` before: the interpreter must be the one that runs."""
    from triton.runtime import interpreter

    _make_language_ready_once(interpreter)
    _call_builtins_directly(interpreter)
    _know_types(interpreter)
    _look_for_overflow_at_once(interpreter)
    _agree_on_types_once(interpreter)
    _spread_to_known_shapes(interpreter)


def _make_language_ready_once(interpreter: Any) -> None:
    """A launch puts numpy's side in place of Triton's language and back; each device function that it calls does so again."""
    make_ready, languages = interpreter._patch_lang, (interpreter.tl, interpreter.tl.core)
    spoken: dict[FunctionType, list[Any]] = {}

    def once(function: FunctionType) -> Any:
        if function not in spoken:
            spoken[function] = [v for v in function.__globals__.values() if any(v is language for language in languages)]
        for language in spoken[function]:
            if language.range.__name__ != "_new_range":
                return make_ready(function)
        return interpreter._LangPatchScope()

    interpreter._patch_lang = once


def _call_builtins_directly(interpreter: Any) -> None:
    """A function of the language is called with its semantics by a wrapper, which copies its arguments, by way of another, which asks for them."""
    asks = interpreter.tl.core.builtin(lambda: None).__code__

    def direct(owner: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        inner = member.__wrapped__ if getattr(member, "__code__", None) is asks else member

        def call(*args: Any, **kwargs: Any) -> Any:
            kwargs["_semantic"] = interpreter.interpreter_semantic
            return inner(*args, **kwargs)

        scope.set_attr(owner, name, call)

    interpreter._patch_attr = direct


def _know_types(interpreter: Any) -> None:
    """Each value makes a type of its own, with its name, its shape and the shape's type, and looks numpy's up in a table that it makes.

    A block's type also has its `sizes` here: what it is told from others by.
    """
    core = interpreter.tl.core
    find, name_block, shapes = interpreter._get_np_dtype, core.block_type.__init__, dict[tuple[int, ...], tuple[Any, Any]]()
    made, widen = core.tensor.__init__, core.block_type.to_ir
    found: dict[tuple[Any, ...], Any] = {}
    blocks: dict[tuple[Any, ...], dict[str, Any]] = {}
    lowered: dict[tuple[Any, ...], Any] = {}

    def named(dtype: Any) -> tuple[Any, ...]:
        """What tells it from others: of pointers there is no hash."""
        return type(dtype), dtype.name, getattr(dtype, "address_space", None)

    def found_once(dtype: Any) -> Any:
        key = named(dtype)
        if key not in found:
            found[key] = find(dtype)
        return found[key]

    def block(self: Any, element: Any, shape: Any) -> None:
        key = (*named(element), *[core._unwrap_if_constexpr(size) for size in shape])
        if key not in blocks:
            name_block(self, element, shape)
            blocks[key] = self.__dict__ | {"sizes": tuple(self.shape)}
        self.__dict__.update(blocks[key])

    def with_element(self: Any, scalar: Any) -> Any:
        key = (*named(scalar), *self.sizes)
        if key not in blocks:
            return core.block_type(scalar, list(self.sizes))
        other = object.__new__(core.block_type)
        other.__dict__.update(blocks[key])
        return other

    def to_ir(self: Any, builder: Any) -> Any:
        key = named(self.element_ty), self.sizes
        if key not in lowered:
            lowered[key] = widen(self, builder)
        return lowered[key]

    def tensor(self: Any, handle: Any, dtype: Any) -> None:
        self.handle, self.type, self.dtype = handle, dtype, dtype.scalar
        sizes = dtype.sizes
        if sizes not in shapes:
            made(self, handle, dtype)
            shapes[sizes] = self.numel, self.shape
        self.numel, self.shape = shapes[sizes]

    core.dtype.sizes = ()
    interpreter._get_np_dtype, core.block_type.__init__, core.tensor.__init__ = found_once, block, tensor
    core.block_type.with_element_ty, core.block_type.to_ir = with_element, to_ir


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


def _agree_on_types_once(interpreter: Any) -> None:
    """Which type two operands meet in follows from theirs, and is found anew for each operation; a number's range is looked at each time."""
    core, semantic = interpreter.tl.core, interpreter.TritonSemantic
    agree, convert = semantic.binary_op_type_checking_impl, semantic.cast
    agreed: dict[tuple[Any, ...], Any] = {}

    def cast(self: Any, value: Any, dtype: Any, rounding: Any = None) -> Any:
        have, want = value.dtype, dtype.scalar
        return value if have.name == want.name and not have.is_ptr() else convert(self, value, dtype, rounding)

    def agree_once(
        self: Any, lhs: Any, rhs: Any, left_ptr: bool = False, right_ptr: bool = False, checked: bool = True, divides: bool = False
    ) -> Any:
        operands, types, numbers = (lhs, rhs), [], []
        for one in operands:
            if isinstance(one, core.tensor):
                types.append(one.dtype)
            elif type(one) in (int, float):
                types.append(self.to_tensor_type(one))
                numbers.append(one)
            else:
                return agree(self, lhs, rhs, left_ptr, right_ptr, checked, divides)
        key = (types[0].name, types[1].name, type(lhs), type(rhs), left_ptr, right_ptr, checked, divides)
        pointers = types[0].is_ptr() or types[1].is_ptr()
        meet = agreed.get(key)
        if len(numbers) == 2 or (pointers and (numbers or (types[0].is_ptr() and types[1].is_ptr()))) or meet is None:
            both = agree(self, lhs, rhs, left_ptr, right_ptr, checked, divides)
            agreed[key] = both[0].dtype if checked and not pointers else False
            return both
        if meet:
            if meet.is_int() and any(not meet.get_int_min_value() <= number <= meet.get_int_max_value() for number in numbers):
                return agree(self, lhs, rhs, left_ptr, right_ptr, checked, divides)
            lhs, rhs = (cast(self, one, meet) if isinstance(one, core.tensor) else self.scalar_constant(one, meet) for one in operands)
        elif numbers:
            lhs, rhs = (self.to_tensor(one) for one in operands)
        return self.broadcast_impl_value(lhs, rhs)

    semantic.binary_op_type_checking_impl, semantic.cast = agree_once, cast


def _spread_to_known_shapes(interpreter: Any) -> None:
    """Two blocks are brought to one shape size by size, and so are two that have it already."""
    semantic = interpreter.TritonSemantic
    spread = semantic.broadcast_impl_value
    known: dict[tuple[Any, Any], tuple[int, ...]] = {}

    def spread_once(self: Any, lhs: Any, rhs: Any) -> Any:
        one, other = lhs.type.sizes, rhs.type.sizes
        if one == other:
            return lhs, rhs
        if len(one) != len(other) or (one, other) not in known:
            both = spread(self, lhs, rhs)
            known[one, other] = both[0].type.sizes
            return both
        shape = known[one, other]
        block = interpreter.tl.core.block_type
        if one != shape:
            lhs = self.tensor(self.builder.create_broadcast(lhs.handle, shape), block(lhs.dtype, list(shape)))
        if other != shape:
            rhs = self.tensor(self.builder.create_broadcast(rhs.handle, shape), block(rhs.dtype, list(shape)))
        return lhs, rhs

    semantic.broadcast_impl_value = spread_once
