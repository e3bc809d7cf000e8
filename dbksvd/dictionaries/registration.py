"""SAE architectures of this package, made known to SAELens.

A module of its own, and not code in ``__init__.py``: else every fit would depend on every
architecture.
"""

from __future__ import annotations

from dbksvd.dictionaries.saved import ARCHITECTURE


def register() -> None:
    """Register the architectures with SAELens; a second call changes nothing.

    Imports are inside, since the modules need SAELens, which takes seconds to load and which
    ``import dbksvd`` must not require.
    """
    from sae_lens.registry import (
        SAE_CLASS_REGISTRY,
        SAE_TRAINING_CLASS_REGISTRY,
        register_sae_class,
        register_sae_training_class,
    )

    from dbksvd.dictionaries import kron, llama_scope, switch
    from dbksvd.dictionaries.pursuit_sae import PursuitSAE, PursuitSAEConfig

    for name, sae_class, config_class in (
        (ARCHITECTURE, PursuitSAE, PursuitSAEConfig),
        (switch.ARCHITECTURE, switch.SwitchSAE, switch.SwitchSAEConfig),
        (kron.ARCHITECTURE, kron.KronSAE, kron.KronSAEConfig),
    ):
        if name not in SAE_CLASS_REGISTRY:
            register_sae_class(name, sae_class, config_class)
    for name, training_class, training_config_class in (
        (switch.ARCHITECTURE, switch.SwitchTrainingSAE, switch.SwitchTrainingSAEConfig),
        (kron.ARCHITECTURE, kron.KronTrainingSAE, kron.KronTrainingSAEConfig),
        (
            llama_scope.ARCHITECTURE,
            llama_scope.LlamaScopeTrainingSAE,
            llama_scope.LlamaScopeTrainingSAEConfig,
        ),
    ):
        if name not in SAE_TRAINING_CLASS_REGISTRY:
            register_sae_training_class(name, training_class, training_config_class)
