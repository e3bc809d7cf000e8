"""Operations on tensors, each with one definition and several implementations."""
