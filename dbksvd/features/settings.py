"""Settings of the examples and statistics that feature pages show."""

from __future__ import annotations

from dbksvd.base.settings import Count, NonNegativeInt, Seed, Settings
from dbksvd.base.splits import Split


class ExampleSettings(Settings):
    """What is collected of every atom of a site; Neuronpedia's numbers by default."""

    split: Split = "heldout"
    """Documents or images that are read."""
    n_tokens: Count | None = None
    """Tokens after which no further document is begun; null reads the whole split."""
    top: Count = 20
    """Contexts with the largest coefficients."""
    groups: Count = 5
    """Quantile groups of contexts."""
    per_group: Count = 5
    """Contexts of a quantile group."""
    tokens_before: NonNegativeInt = 31
    """Tokens that a context shows before its largest coefficient."""
    tokens_after: NonNegativeInt = 16
    """Tokens that a context shows after its largest coefficient."""
    tokens_listed: Count = 20
    """Tokens listed of those on which an atom fires most."""
    coactive_listed: Count = 10
    """Atoms listed of those that fire together with an atom."""
    coactive_tokens: Count = 100_000
    """Tokens, from the first on, among which atoms that fire together are counted."""
    nearest: Count = 5
    """Nearest atoms listed of each dictionary."""
    table_megabytes: Count = 384
    """Memory for the counts of tokens and of pairs, all dictionaries together, in MiB."""
    seed: Seed = 0
    """Decides which contexts the quantile groups are drawn from, and the map."""

    @property
    def slots(self) -> int:
        """Contexts kept of a feature."""
        return self.top + self.groups * self.per_group

    @property
    def window(self) -> int:
        """Most tokens of a context that are shown."""
        return self.tokens_before + 1 + self.tokens_after
