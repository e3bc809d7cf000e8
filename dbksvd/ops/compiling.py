"""How numba kernels are compiled.

Arrays are lent to a kernel for the time of a call. Where a kernel makes none, its references need
not be counted: in kernels that look at one row after another, counting took up to half of the time,
more where threads share an array. A function that makes arrays calls such kernels and is compiled
with the counting left on. Numba does not document the option `_nrt`; a test fails where it no
longer does this.
"""

from __future__ import annotations

from functools import partial

from numba import njit

# No NaN comes in (checked) and none is made, so maxima and sums may be vectorised.
FAST = {"nnan", "ninf", "nsz", "contract", "reassoc"}

compile_kernel = partial(njit, nogil=True, cache=True, _nrt=False)
compile_allocating = partial(njit, nogil=True, cache=True)
