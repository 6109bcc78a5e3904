"""Never ends, and catches what would end it."""

while True:
    try:  # noqa: SIM105 - it is the bad example
        sum(range(100))
    except Exception:  # noqa: BLE001, S110 - it is the bad example
        pass
