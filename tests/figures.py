"""What the long tests have counted, for one table at the end."""

_TOLD: list[tuple[str, dict[str, object]]] = []


def tell(test: str, **figures: object) -> None:
    """Keep what a test has counted."""
    _TOLD.append((test, figures))


def table() -> list[str]:
    """Everything that was told, a line each."""
    width = max((len(test) for test, _ in _TOLD), default=0)
    return [
        f"{test:{width}}  "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        for test, figures in _TOLD
    ]
