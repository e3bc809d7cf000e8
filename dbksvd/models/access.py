"""What an experiment needs from outside, asked for before any long work: hub and keys.

Light to import: neither torch nor transformers is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dbksvd.base.local_files import expand_user, is_path
from dbksvd.base.settings import parse
from dbksvd.models.places import CONFIG_FILE, find_config, find_folder
from dbksvd.models.settings import AccessSettings, HubDataSet, ModelSettings
from dbksvd.models.sizes import (
    ModelKind,
    ModelSizes,
    check_sizes,
    read_config,
    read_sizes,
    tell_kind,
)


def check_model(
    settings: Mapping[str, Any] | ModelSettings, layers: list[int]
) -> tuple[ModelKind, dict[str, Any]]:
    """Check that a model can be had and is the expected one; only its config is fetched.

    Parameters
    ----------
    settings : ModelSettings, or a mapping of the same keys
        Section ``model`` of the config: ``name`` and ``revision`` of a model on the hub.
    layers : list of int
        Blocks whose outputs are wanted, counted from 1.

    Returns
    -------
    kind : {"encoder", "causal"}
    facts : dict
        Its sizes, for the record.

    Raises
    ------
    ValueError
        If the model is not there, is gated, or has another width or depth; or a layer it has not.
    """
    settings = parse(ModelSettings, settings, "model")
    if settings.name is None:
        raise ValueError(f"model.name: expected a name on the hub, got {settings.shown_name}")
    name, revision = settings.name, settings.revision
    is_local = find_folder(name) is not None
    path = find_config(settings) if is_local or _is_offline() else _fetch_config(name, revision)
    if path is None:
        _refuse_offline("model.name", name)
    sizes = read_sizes(path)
    check_sizes(settings.expect, ModelSizes(sizes.width, sizes.layers), name)
    for layer in layers:
        if layer > sizes.layers:
            raise ValueError(
                f"activations.layers: expected 0 to {sizes.layers}, the blocks of {name}, "
                f"got {layer}"
            )
    # The hub's client keeps a file in a folder named by its commit.
    facts: dict[str, Any] = {"name": name, "revision": revision}
    facts["commit"] = None if is_local else path.parent.name
    facts |= {"width": sizes.width, "layers": sizes.layers}
    return tell_kind(read_config(path).get("architectures")), facts


def _fetch_config(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    with _explain_hub("model.name", name):
        HfApi().auth_check(name)
        return Path(hf_hub_download(name, CONFIG_FILE, revision=revision))


def check_data_set(wanted: HubDataSet) -> dict[str, Any]:
    """Check that a data set of the hub can be had; return its commit, for the record.

    A local folder needs no hub. Without one (``HF_HUB_OFFLINE``), it must be in the cache of
    `datasets`, and cannot be streamed.

    Parameters
    ----------
    wanted : HubDataSet
        Its name, and how it will be read.

    Raises
    ------
    ValueError
        If it cannot be had; the message says why.
    """
    name, key, revision = wanted.name, wanted.key, wanted.revision
    folder = expand_user(name)
    if folder.is_dir():
        return {"name": name, "revision": None}
    if is_path(name):
        raise ValueError(f"{key}: expected a folder, found none at {folder.absolute()}")
    with _explain_hub(key, name):
        if not _is_offline():
            from huggingface_hub import HfApi

            HfApi().auth_check(name, repo_type="dataset")
            found = HfApi().dataset_info(name, revision=revision)
            return {"name": name, "revision": found.sha}
        if wanted.streaming:
            _refuse_offline(key, name)
        from datasets import load_dataset_builder

        try:
            load_dataset_builder(name, wanted.config, revision=revision, trust_remote_code=False)
        except (ValueError, OSError):
            _refuse_offline(key, name)
    return {"name": name, "revision": revision}


def check_access(
    wanted: Mapping[str, Any] | AccessSettings,
) -> tuple[ModelKind | None, dict[str, Any]]:
    """Check all that an experiment needs from outside; see the other functions.

    Parameters
    ----------
    wanted : AccessSettings, or a mapping of the same keys
        What is needed.

    Returns
    -------
    kind : {"encoder", "causal"} or None
        Kind of the model, None without one.
    facts : dict
        What was found, with commits, for the record.
    """
    facts: dict[str, Any] = {}
    wanted = parse(AccessSettings, wanted, "access")
    for key in wanted.keys:
        check_key(key.variable, key.key, key.url)
    kind = None
    if wanted.model is not None:
        kind, facts["model"] = check_model(wanted.model, wanted.layers)
    facts["data_sets"] = [check_data_set(each) for each in wanted.data_sets]
    return kind, facts


def check_key(variable: str, key: str, url: str) -> None:
    """Check that an API key is set.

    Raises
    ------
    ValueError
        If the environment has none; a key's content is never shown.
    """
    if not os.environ.get(variable):
        raise ValueError(
            f"{key}: expected the key of {url} in the environment variable {variable}, "
            "which is not set"
        )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _refuse_offline(key: str, name: str) -> NoReturn:
    raise ValueError(
        f"{key}: expected {name} from the hub, which HF_HUB_OFFLINE=1 keeps from being asked, and "
        "found none in the cache (HF_HUB_OFFLINE=0, or make run OFFLINE=0, asks it)"
    )


@contextmanager
def _explain_hub(key: str, name: str) -> Iterator[None]:
    """Turn what the hub's client raises into one line that names the key."""
    from huggingface_hub import constants, errors

    where = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as error:
        raise ValueError(
            f"{key}: expected access to {name}, which is gated: accept its terms on {where} and "
            "set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{key}: {name} has no such revision on {where}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{key}: expected a name on {where}, found no {name!r} (private ones need HF_TOKEN)"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise ValueError(f"{key}: expected {CONFIG_FILE} in {name} on {where}") from error
    except (errors.HTTPError, OSError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"{key}: expected {where} to give out {name}, got: {text} (without a network: a folder "
            "on this machine, or with HF_HUB_OFFLINE=1 what the cache has)"
        ) from error
