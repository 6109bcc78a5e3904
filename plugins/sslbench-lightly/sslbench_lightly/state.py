"""State that lightly does not save."""

from __future__ import annotations


def kept(bank):
    """That memory bank, with what it holds in checkpoints, or a resumed fit would start it anew."""
    bank.register_buffer("bank", bank.bank)
    bank.register_buffer("bank_ptr", bank.bank_ptr)
    return bank
