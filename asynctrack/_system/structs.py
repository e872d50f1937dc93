"""Structs: a base for structs that users make, which say of a wrong field which one was perhaps meant. Runs anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from asynctrack._system.suggestions import clearer, was_never_entered

if TYPE_CHECKING:
    Struct = msgspec.Struct
else:

    class _Suggests(msgspec.StructMeta):
        """Makes classes whose call says what msgspec says of a wrong field, and the field that is most like it."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True  # pytest and IPython leave it out
            try:
                return super().__call__(*args, **kwargs)
            except TypeError as error:
                if not was_never_entered(error):
                    raise
                raise clearer(error, cls.__name__, cls.__struct_fields__) from None

    class Struct(msgspec.Struct, metaclass=_Suggests):
        """A struct whose constructor knows what a wrong name was perhaps meant to be."""
