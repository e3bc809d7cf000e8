"""Ready activations by the header of their file: rows, width and dtype, without reading rows."""

from __future__ import annotations

from pathlib import Path

from dbksvd.activations.settings import FileActivations, ReadySettings
from dbksvd.base.local_files import ArrayHeader, read_npy_header, read_tensor_headers, require_file
from dbksvd.base.settings import suggest
from dbksvd.base.splits import SPLITS

WHERE = "activations.files"
ENDINGS = (".npy", ".h5", ".hdf5", ".safetensors")
FLOATS = {"float16", "float32", "float64", "bfloat16", "F16", "F32", "F64", "BF16"}


def check_ready(settings: FileActivations) -> tuple[int, int] | None:
    """Check a file of ready activations against what is asked of it.

    Returns
    -------
    (rows, width), or None where h5py is not installed to read them.

    Raises
    ------
    ValueError
        If the file is not there, is damaged, or holds no floating array of shape (rows, d) with
        enough rows.
    """
    shape = read_shape(settings.files)
    if shape is None:
        return None
    needed = sum(settings.count(split) for split in SPLITS)
    if shape[0] < needed:
        counts = " + ".join(str(settings.count(split)) for split in SPLITS)
        raise ValueError(
            f"{WHERE}.path: expected at least {needed} rows ({counts}), "
            f"got {shape[0]} in {settings.files.path}"
        )
    return shape


def read_shape(settings: ReadySettings) -> tuple[int, int] | None:
    """Return rows and width of the array; None where h5py is not installed to read them.

    Raises
    ------
    ValueError
        If there is no floating array of shape (rows, d).
    """
    path = require_file(settings.path, f"{WHERE}.path", f"a file of kind {', '.join(ENDINGS)}")
    if path.suffix not in ENDINGS:
        raise ValueError(f"{WHERE}.path: expected a file of kind {', '.join(ENDINGS)}, got {path}")
    header = _read_header(path, settings.tensor)
    if header is None:
        return None
    if header.dtype not in FLOATS:
        raise ValueError(f"{WHERE}: expected a floating dtype, got {header.dtype} in {path}")
    if len(header.shape) != 2 or 0 in header.shape:
        raise ValueError(
            f"{WHERE}: expected an array of shape (rows, d), got {header.shape} in {path}"
        )
    return header.shape[0], header.shape[1]


def _read_header(path: Path, tensor: str) -> ArrayHeader | None:
    if path.suffix == ".npy":
        return read_npy_header(path)
    if path.suffix == ".safetensors":
        headers = read_tensor_headers(path)
        if tensor not in headers:
            raise _refuse_tensor(path, tensor, list(headers))
        return headers[tensor]
    try:
        import h5py
    except ImportError:
        return None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ValueError(f"{path}: expected a whole HDF5 file, got: {error}") from error
    from dbksvd.activations.hdf5_sources import explain_damage, list_hdf5_files

    with file:
        with explain_damage(path):
            is_link = isinstance(file.get(tensor, getlink=True), h5py.SoftLink | h5py.ExternalLink)
            is_array = is_link or isinstance(file.get(tensor), h5py.Dataset)
            known = sorted(file)
        if not is_array:
            raise _refuse_tensor(path, tensor, known)
        list_hdf5_files(path, tensor)  # all that the dataset is read from must be there
        with explain_damage(path):
            array = file[tensor]
            return ArrayHeader(array.shape or (), array.dtype.name)


def _refuse_tensor(path: Path, tensor: str, known: list[str]) -> ValueError:
    return ValueError(
        f"{WHERE}.tensor: expected one of {', '.join(known) or 'none'} in {path}"
        f"{suggest(tensor, known)}, got {tensor!r}"
    )
