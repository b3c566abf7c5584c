"""The Hub of models and data sets: whether it answers at all.

Owns that question, asked once and for seconds, before libraries ask it for minutes. What is fetched is not known here.
"""

from __future__ import annotations

import threading

from tiebreak.errors import one_line

SECONDS = 8.0


def unreachable() -> str | None:
    """Return why the Hub cannot be asked, in words; None where it answers. Takes `SECONDS` at most."""
    import huggingface_hub  # noqa: PLC0415 - loads slowly
    from huggingface_hub import constants  # noqa: PLC0415

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    said = [f"{constants.ENDPOINT} gave no answer in {SECONDS:g} s"]

    def ask() -> None:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=SECONDS)
        except Exception as error:  # noqa: BLE001 - no name, no route, a proxy: clients have error types of their own
            said.append(f"{constants.ENDPOINT}: {one_line(error, 120) or type(error).__name__}")
        else:
            said.clear()

    # A look-up of the name knows no timeout, and there may be many addresses: a thread of its own has one for all.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return said[-1] if said else None
