"""Weights far from initialisation, so that a missing norm, bias or residual shows."""

import torch


def randomise(module, *, seed: int, scale: float = 0.3):
    """Fills every parameter of a PyTorch module; returns it, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            is_norm_scale = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1.0 + noise if is_norm_scale else noise)
    return module.eval()
