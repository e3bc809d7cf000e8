"""A plain transformers model in the role of HookedTransformer, for SAEBench and sae-probes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dbksvd.base.site import RESIDUAL
from dbksvd.models import families
from dbksvd.models.families import HOOK_NAMES, list_close, parse_hook
from dbksvd.models.hooks import HookPoint, find_hook
from dbksvd.models.loading import LoadedModel
from dbksvd.models.sizes import ModelKind


def name_hook(layer: int) -> str:
    """Return TransformerLens's name for the output of block `layer`, counted from 1."""
    return str(families.name_hook(layer))


@dataclass(frozen=True)
class EvalSite:
    """Where activations come from, under the names SAEBench files them by.

    Parameters
    ----------
    model_name : str
        Model, as a name fit for file names.
    layer : int
        Block whose output is meant, or a place inside it, counted from 1.
    seed : int
        Seed of everything random in an eval.
    kind : {"encoder", "causal"}
        Whether the model has a language-model head.
    norm_limit : float or None
        Positions whose activation has a larger norm are left as they are: no dictionary was fitted
        on them. None where there is no limit, and in preparations that do not need it.
    place : str
        Where in the block, by a name of :data:`dbksvd.models.families.HOOK_NAMES`.
    """

    model_name: str
    layer: int
    seed: int = 0
    kind: ModelKind = "encoder"
    norm_limit: float | None = None
    place: str = RESIDUAL

    @property
    def hook(self) -> str:
        """TransformerLens's name of the site."""
        return str(families.name_hook(self.layer, self.place))

    @property
    def below(self) -> str:
        """TransformerLens's name of what the site's block reads, which no dictionary changes."""
        return str(families.name_hook(self.layer, "residual_before"))


class _StopForwardError(Exception):
    """Ends a forward pass once the last wanted block has run."""


class SAEBenchModel:
    """A transformers model with the few methods of HookedTransformer that SAEBench calls.

    SAEBench passes no attention mask: for an encoder it is made here from the pad token, so that
    padded rows come out as they would alone. A causal model needs none with padding on the right.

    Parameters
    ----------
    loaded : LoadedModel
        Model, tokenizer and sizes from :func:`dbksvd.models.loading.load_model`.
    name : str
        Name that SAEBench files results under.
    batch_size : int
        Rows that one forward pass of :meth:`run_with_cache` takes at most.

    Raises
    ------
    ValueError
        If the tokenizer has no token to pad with.
    """

    def __init__(self, loaded: LoadedModel, name: str, batch_size: int = 32) -> None:
        self.loaded, self.model = loaded, loaded.model
        self.device = loaded.device
        self.is_causal = loaded.kind == "causal"
        self.batch_size = batch_size
        self.blocks = [find_hook(loaded, layer).module for layer in range(1, loaded.n_layers + 1)]
        # A copy, because sae-probes sets the truncation side on whatever it is given.
        self.tokenizer: Any = copy.deepcopy(loaded.tokenizer)
        self.tokenizer.padding_side = "right"
        if loaded.max_length is not None:  # some tokenizers know no limit
            limit = min(self.tokenizer.model_max_length, loaded.max_length)
            self.tokenizer.model_max_length = limit
        # SAEBench masks the bos, eos and pad tokens: an encoder's special tokens take these roles.
        if self.tokenizer.bos_token is None and self.tokenizer.cls_token is not None:
            self.tokenizer.bos_token = self.tokenizer.cls_token
        if self.tokenizer.eos_token is None and self.tokenizer.sep_token is not None:
            self.tokenizer.eos_token = self.tokenizer.sep_token
        _name_first_token(self.tokenizer)
        # transformers gives some tokenizers a pad token that the model has no embedding for.
        known = loaded.embeddings or len(self.tokenizer)
        if self.tokenizer.pad_token is None or self.tokenizer.pad_token_id >= known:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.tokenizer.pad_token is None:
            raise ValueError(f"model: the tokenizer of {name!r} has neither pad nor eos token")
        self.cfg = SimpleNamespace(
            model_name=name,
            d_model=loaded.width,
            n_layers=loaded.n_layers,
            n_ctx=loaded.max_length,
            d_vocab=self.model.config.vocab_size,
            device=str(loaded.device),
            default_prepend_bos=False,
        )

    def to(self, *_args: Any, **_kwargs: Any) -> SAEBenchModel:
        """Do nothing: the model stays where `load_model` put it."""
        return self

    def to_tokens(self, texts: str | Sequence[str], **_kwargs: Any) -> Tensor:
        """Return token ids, int64 of shape (texts, longest), padded on the right."""
        batch = [texts] if isinstance(texts, str) else list(texts)
        return self.tokenizer(batch, padding=True, truncation=True, return_tensors="pt")[
            "input_ids"
        ].to(self.device)

    def mask_text(self, tokens: Tensor) -> Tensor:
        """Return where `tokens` are text and not bos, eos or pad; bool of the same shape."""
        tokenizer = self.tokenizer
        special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        wanted = torch.ones_like(tokens, dtype=torch.bool)
        for token in special:
            if token is not None:
                wanted &= tokens != token
        return wanted

    def __call__(self, tokens: Tensor, **kwargs: Any) -> Any:
        """Run the model as it is; see :meth:`run_with_hooks`."""
        return self.run_with_hooks(tokens, fwd_hooks=[], **kwargs)

    def to_str_tokens(self, tokens: Tensor) -> list[str]:
        """Return the text of each token of a row (t,)."""
        return [self.tokenizer.decode([token]) for token in tokens.tolist()]

    @torch.no_grad()
    def run_with_hooks(
        self,
        tokens: Tensor,
        *,
        fwd_hooks: Sequence[tuple[str, Callable[..., Tensor | None]]],
        stop_at_layer: int | None = None,
        return_type: str | None = None,
        **_kwargs: Any,
    ) -> Any:
        """Run tokens through the model, calling hooks on block outputs, or other places in them.

        Parameters
        ----------
        tokens : int64 tensor of shape (b, t)
            Rows of tokens, padded on the right.
        fwd_hooks : list of (name, function)
            A function sees what is at a place (b, t, d) as float32; a tensor that it returns
            replaces that.
        stop_at_layer : int, optional
            Blocks from here on, counted from 0, are not run.
        return_type : {"both", "logits"}, optional
            Return logits (b, t, vocabulary), float32, and with "both" the cross entropy of each
            next token (b, t - 1) beside them. By default nothing is returned.

        Raises
        ------
        ValueError
            If logits are asked of a model without a language-model head.
        """
        if return_type not in ((None, "both", "logits") if self.is_causal else (None,)):
            raise ValueError(
                f"return_type: expected None or, with a language-model head, 'both' or 'logits', "
                f"got {return_type!r} for {self.cfg.model_name}"
            )
        handles = []
        try:
            for name, function in fwd_hooks:
                handles.append(_register(self._find_point(name), name, function))
            if stop_at_layer is not None:
                handles.append(self.blocks[stop_at_layer - 1].register_forward_hook(_stop))
            tokens = tokens.to(self.device)
            mask = None if self.is_causal else (tokens != self.tokenizer.pad_token_id).long()
            output = self.model(input_ids=tokens, attention_mask=mask)
        except _StopForwardError:
            return None
        finally:
            for handle in handles:
                handle.remove()
        if return_type is None:
            return None
        logits = output.logits.float()
        if return_type == "logits":
            return logits
        # The vocabulary last: sums over it along another axis lose a digit or two.
        rows, length, size = logits.shape
        loss = nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, size), tokens[:, 1:].reshape(-1), reduction="none"
        ).view(rows, length - 1)
        return logits, loss

    def run_with_cache(
        self,
        tokens: Tensor | Sequence[str],
        *,
        names_filter: str | Sequence[str],
        **_kwargs: Any,
    ) -> tuple[None, dict[str, Tensor]]:
        """Return what is at places (b, t, d) by hook name; padded positions are zero.

        Rows are run in order of length and cut to their longest: padding costs as much as text.
        Blocks behind the last wanted one are not run.
        """
        if not isinstance(tokens, Tensor):
            tokens = self.to_tokens(tokens)
        names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        stop_at_layer = max(self._parse(name)[0] for name in names)
        lengths = self.measure_lengths(tokens)
        size = (*tokens.shape, self.cfg.d_model)
        cache = {name: torch.zeros(size, device=self.device) for name in names}
        for rows in lengths.argsort(stable=True).split(self.batch_size):
            longest = int(lengths[rows].max())

            def keep(out: Tensor, *, hook: Any, rows: Tensor = rows, stop: int = longest) -> None:
                cache[hook.name][rows, :stop] = out

            self.run_with_hooks(
                tokens[rows, :longest],
                fwd_hooks=[(name, keep) for name in names],
                stop_at_layer=stop_at_layer,
            )
        padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        for output in cache.values():
            output[padding.to(output.device)] = 0
        return None, cache

    def measure_lengths(self, tokens: Tensor) -> Tensor:
        """Return the tokens of each row (b, t) up to its padding, 1 at least: int64 of (b,)."""
        # The last token that is not padding: a causal model's pad token may also stand in a text.
        used = (tokens != self.tokenizer.pad_token_id).cpu()
        positions = torch.arange(1, tokens.shape[1] + 1)
        return (used * positions).max(dim=1).values.clamp(min=1)

    def _find_point(self, name: str) -> HookPoint:
        """Return the module of a place."""
        layer, place = self._parse(name)
        return find_hook(self.loaded, layer, place=place)

    def _parse(self, name: str) -> tuple[int, str]:
        """Return layer and place of a hook's name."""
        found = parse_hook(name)
        if found is None or found[0] > len(self.blocks):
            known = [hook.format(block="N") for hook in HOOK_NAMES.values()]
            blocks = range(len(self.blocks))
            names = [one.format(block=block) for one in HOOK_NAMES.values() for block in blocks]
            raise ValueError(
                f"hook: expected one of {', '.join(known)} with N < {len(self.blocks)}, got "
                f"{name!r}{list_close(name, names)}"
            )
        return found


def _name_first_token(tokenizer: Any) -> None:
    """Let the token that a tokenizer puts before a text be its bos where it names none.

    Shards drop it as special, and SAEBench would score it as text.
    """
    around = tokenizer("a", return_special_tokens_mask=True)
    if tokenizer.bos_token is None and around["special_tokens_mask"][:1] == [1]:
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(around["input_ids"][0])


def _register(point: HookPoint, name: str, function: Callable[..., Tensor | None]) -> Any:
    """Let a function see, and replace, what is at a place; return the handle of the hook."""
    adapted = _adapt_hook(name, function)
    if not point.takes_input:
        return point.module.register_forward_hook(adapted)

    def run(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        if args:
            return (adapted(module, (), args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": adapted(module, (), kwargs["hidden_states"])}

    return point.module.register_forward_pre_hook(run, with_kwargs=True)


def _adapt_hook(name: str, function: Callable[..., Tensor | None]) -> Callable[..., Any]:
    def run(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        # transformers 5 blocks return a tensor, earlier ones a tuple that starts with it.
        hidden = output[0] if isinstance(output, (tuple, list)) else output
        replaced = function(hidden.float(), hook=SimpleNamespace(name=name))
        if replaced is None:
            return output
        replaced = replaced.to(hidden.dtype)
        return (replaced, *output[1:]) if isinstance(output, (tuple, list)) else replaced

    return run


def _stop(*_args: Any) -> None:
    raise _StopForwardError
