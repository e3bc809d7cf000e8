"""How far a basis separates what a language model knows of an entity: prompts, masks, scores."""
