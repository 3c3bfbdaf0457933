"""optimiser: which parameters are orthogonalised and which are not."""

from __future__ import annotations

import torch

from model_export.config import TINY
from model_export.model import CodecModel
from model_export.optimiser import Muon, orthogonalise


def test_output_layers_biases_and_tables_are_adams():
    model = CodecModel(TINY)
    names = {id(p): name for name, p in model.named_parameters()}
    optimiser = Muon(model.named_parameters())
    muons = {names[id(p)] for p in optimiser.kernels}
    adams = {names[id(p)] for group in optimiser.adam.param_groups for p in group["params"]}
    assert muons | adams == set(names.values())
    assert not muons & adams
    assert "priors.1.dequantiser.refiner.rest.0.conv.weight" in muons
    assert "priors.0.luma.3.first.convs.1.weight" in muons
    assert "priors.1.dequantiser.last.convs.1.weight" in adams
    assert "priors.0.luma.3.last.convs.0.weight" in adams
    assert "priors.1.dequantiser.refiner.rest.0.bias" in adams


def test_an_orthogonalised_matrix_keeps_its_directions_and_loses_its_sizes():
    torch.manual_seed(0)
    matrix = torch.randn(6, 20) @ torch.diag(torch.logspace(-1, 1, 20))
    sizes = torch.linalg.svdvals(orthogonalise(matrix))
    assert 0.6 < sizes.min() < sizes.max() < 1.3
    assert torch.equal(orthogonalise(matrix.T), orthogonalise(matrix).T)


def test_what_has_no_gradient_stays_where_it_is():
    layer = torch.nn.Conv2d(4, 4, 1)
    still = torch.nn.Conv2d(4, 4, 1)
    before = still.weight.detach().clone(), layer.weight.detach().clone()
    optimiser = Muon([*layer.named_parameters("moving"), *still.named_parameters("still")], rate=0.1)
    layer(torch.ones(1, 4, 2, 2)).square().sum().backward()
    optimiser.step(1.0)
    assert torch.equal(still.weight, before[0])
    assert not torch.equal(layer.weight, before[1])
