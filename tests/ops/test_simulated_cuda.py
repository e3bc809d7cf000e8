"""The simulated device refuses what CUDA refuses, and its codes are those of the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from simulated_cuda import questions, simulate_cuda
from torch.nn.functional import normalize

from dbksvd import sparse_encode
from dbksvd.fit.measure import sum_squares
from dbksvd.fit.reading import READ_ROWS
from dbksvd.ops.atom_update import cuda as update
from dbksvd.ops.atom_update.update import update_atoms_

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device"),
    # of Triton's interpreter
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def device():
    with simulate_cuda():
        yield torch.device("cuda")


MIXED = {
    "sum": lambda x: x + torch.zeros(4),
    "join": lambda x: torch.cat([x, torch.zeros(1, 4)]),
    "index of a CPU tensor": lambda x: torch.zeros(4)[x.argmax(dim=1)],
    "values from the CPU": lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 4)),
    "another device": lambda x: x + x.to("cuda:1"),
}


@pytest.mark.parametrize("what", MIXED)
def test_devices_do_not_mix(what, device):
    x = torch.ones(3, 4, device=device)
    with pytest.raises(RuntimeError, match="to be on the same device"):
        MIXED[what](x)


def test_what_is_allowed_on_two_devices(device):
    x = torch.ones(3, 4, device=device)
    assert (x * torch.tensor(2.0)).device == x[torch.tensor([0])].device == x.device
    x[0] = torch.zeros(4)
    assert x.cpu().sum() == 8
    assert x.to("cpu").device.type == "cpu"
    assert (x.cpu().to(x.device) == x).all()


def test_numpy_generators_and_pinning_are_refused(device):
    x = torch.ones(3, 4, device=device)
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        x.numpy()
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        torch.randperm(4, device=device, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        x.normal_(generator=torch.Generator())
    with pytest.raises(RuntimeError, match="cannot pin"):
        x.pin_memory()


def test_gradients_and_optimizers(device):
    torch.manual_seed(0)
    here = torch.nn.Linear(4, 2)
    there = torch.nn.Linear(4, 2)
    there.load_state_dict(here.state_dict())
    there.to(device)
    assert there.weight.is_cuda
    x = torch.randn(5, 4)
    for layer, rows in ((here, x), (there, x.to(device))):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
        layer(rows).square().sum().backward()
        optimizer.step()
    assert there.weight.grad.is_cuda
    torch.testing.assert_close(there.weight.detach().cpu(), here.weight.detach())


@pytest.mark.parametrize("implementation", ["batched", "cuda"])
@pytest.mark.parametrize("method", ["mp", "omp", "ols"])
def test_codes_and_updates_are_those_of_the_cpu(method, implementation, device):
    generator = torch.Generator().manual_seed(0)
    atoms = normalize(torch.randn(11, 6, generator=generator), dim=1)
    x = torch.randn(8, 6, generator=generator)
    options = {"method": method, "nonnegative": True}
    options |= {"penalties": [0.01] * 11} if method == "mp" else {}
    expected = sparse_encode(x, atoms, 3, implementation="batched", **options)
    there = x.to(device), atoms.to(device)
    found = sparse_encode(*there, 3, implementation=implementation, **options)
    assert found.values.is_cuda
    torch.testing.assert_close(found.values.cpu(), expected.values)
    assert torch.equal(found.indices.cpu(), expected.indices)
    settings = {"atom_batch": 4, "power_iterations": 2}
    left = update_atoms_(x, expected, atoms, implementation="batched", **settings)
    residual = update_atoms_(there[0], found, there[1], implementation=implementation, **settings)
    torch.testing.assert_close(residual.cpu(), left)
    torch.testing.assert_close(there[1].cpu(), atoms)


def test_a_kernel_refuses_tensors_of_the_cpu(device):
    x = torch.ones(2, 3)
    indices, values = torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1)
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        update.compute_residual(x, indices, values, torch.eye(3))


def test_sums_of_squares_ask_the_device_once(device):
    x = torch.ones(3 * READ_ROWS, 1, device=device)
    questions.clear()
    assert sum_squares(x) == pytest.approx(3 * READ_ROWS, rel=1e-12)
    assert questions.total() == 1


@pytest.mark.parametrize(("shared", "widest"), [(99, 1 << 15), (163, 1 << 16), (227, 1 << 16)])
def test_rows_of_an_update_fit_into_the_shared_memory(monkeypatch, shared, widest, device):
    found = SimpleNamespace(shared_memory_per_block_optin=shared << 10)
    monkeypatch.setattr(torch.cuda, "get_device_properties", Mock(return_value=found))
    assert update.find_widest(device) == widest
