"""What tests have counted, for one table at the end, whichever process has counted it."""

Told = tuple[str, dict[str, str]]

_TOLD: list[Told] = []


def tell(test: str, **figures: object) -> None:
    """Keep what a test has counted."""
    _TOLD.append((test, {name: str(value) for name, value in figures.items()}))


def told() -> list[Told]:
    """What was counted in this process, and in those that were taken over from."""
    return list(_TOLD)


def take_over(told: list[Told]) -> None:
    """Keep what another process has counted."""
    _TOLD.extend(told)


def table() -> list[str]:
    """Everything that was told, a line each."""
    width = max((len(test) for test, _ in _TOLD), default=0)
    return [
        f"{test:{width}}  "
        + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        for test, figures in sorted(_TOLD, key=lambda each: each[0])
    ]
