import torch

from dbksvd.base.codes import SparseCodes, concatenate_codes


def make_codes() -> SparseCodes:
    indices = torch.tensor([[2, 0, 0], [1, 3, 0], [0, 0, 0]])
    values = torch.tensor([[1.5, 0.0, 0.0], [-2.0, 1.0, 0.5], [0.0, 0.0, 0.0]])
    return SparseCodes(indices, values, 4)


DENSE = torch.tensor([[0, 0, 1.5, 0], [0.5, -2.0, 0, 1.0], [0, 0, 0, 0]])


def test_dense_and_back():
    assert torch.equal(make_codes().to_dense(), DENSE)
    again = SparseCodes.from_dense(DENSE)
    assert again.indices.shape == (3, 3)
    assert torch.equal(again.to_dense(), DENSE)
    assert torch.equal(SparseCodes.from_dense(torch.zeros(0, 4)).to_dense(), torch.zeros(0, 4))


def test_decode_is_the_dense_product():
    atoms = torch.randn(4, 5)
    torch.testing.assert_close(make_codes().decode(atoms), DENSE @ atoms)


def test_counts():
    codes = make_codes()
    assert codes.l0.tolist() == [1, 3, 0]
    assert codes.count_usage().tolist() == [1, 1, 1, 1]


def test_split_signs_keeps_reconstruction_and_l0():
    atoms = torch.randn(4, 5)
    codes = make_codes()
    split = codes.split_signs()
    assert (split.values >= 0).all()
    assert split.n_atoms == 8
    assert torch.equal(split.l0, codes.l0)
    torch.testing.assert_close(split.decode(torch.cat([atoms, -atoms])), codes.decode(atoms))


def test_concatenate_pads_to_the_widest():
    codes = make_codes()
    narrow = SparseCodes(codes.indices[:, :1], codes.values[:, :1], 4)
    both = concatenate_codes([narrow, codes])
    assert torch.equal(both.to_dense(), torch.cat([narrow.to_dense(), DENSE]))
