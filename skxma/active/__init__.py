"""Which images to label next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skxma.active._query_strategy import SuggestQueryStrategy
    from skxma.active._suggest import suggest

__all__ = ["SuggestQueryStrategy", "suggest"]

if not TYPE_CHECKING:  # to a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name == "suggest":
            from skxma.active._suggest import suggest

            return suggest
        if name == "SuggestQueryStrategy":
            from skxma._runtime.optional import require

            require("skactiveml", what=f"skxma.active.{name}", extra="active")
            from skxma.active._query_strategy import SuggestQueryStrategy

            return SuggestQueryStrategy
        raise AttributeError(f"module 'skxma.active' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
