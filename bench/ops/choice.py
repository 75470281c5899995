"""Which kernels a run may ask for, `ops=`; imports no torch."""

from __future__ import annotations

from enum import StrEnum


class Backend(StrEnum):
    """`auto` is the fastest that works here; results agree up to the order of summation."""

    auto = "auto"
    reference = "reference"
    compiled = "compiled"
    triton = "triton"
