"""Stand-ins for packages that the official modules import, where a Python has torch and not them.

For scripts that run in that Python; none of it is used where the package is there.
"""

import importlib.util
import sys
import types


def stand_in(name: str, **attributes) -> None:
    """A module of that dotted name, with its parents."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        whole = ".".join(parts[:end])
        module = sys.modules.setdefault(whole, types.ModuleType(whole))
        if end > 1:
            setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
    vars(module).update(attributes)


def _missing(package: str) -> bool:
    return package not in sys.modules and importlib.util.find_spec(package) is None


def prepare(*folders: str, compiled: bool = False) -> None:
    """Make checkouts importable.

    Args:
      folders: the checkouts.
      compiled: leave the modules' decorators to torch.compile, which asks for a C++ compiler.
    """
    import torch
    from torch import nn

    if not compiled:
        torch.compile = lambda function=None, **_: function if function else (lambda f: f)
    if _missing("fairscale"):
        # Imported beside the norm and never used by it.
        layers = ("ColumnParallelLinear", "ParallelEmbedding", "RowParallelLinear")
        stand_in("fairscale.nn.model_parallel.initialize")
        stand_in("fairscale.nn.model_parallel.layers", **dict.fromkeys(layers))
    if _missing("timm"):

        class PatchEmbed(nn.Module):
            def __init__(self, size, patch, inputs, width, bias=True, strict_img_size=True):
                super().__init__()
                self.img_size, self.patch_size = (size, size), (patch, patch)
                self.num_patches = (size // patch) ** 2
                self.proj = nn.Conv2d(inputs, width, patch, patch, bias=bias)

            def forward(self, x):
                return self.proj(x).flatten(2).transpose(1, 2)

        class Mlp(nn.Module):
            def __init__(
                self, in_features, hidden_features, out_features=None, act_layer=None, **_
            ):
                super().__init__()
                self.fc1 = nn.Linear(in_features, hidden_features)
                self.act = act_layer()
                self.fc2 = nn.Linear(hidden_features, out_features or in_features)

            def forward(self, x):
                return self.fc2(self.act(self.fc1(x)))

        stand_in("timm.models.vision_transformer", PatchEmbed=PatchEmbed, Mlp=Mlp)
    sys.path[:0] = folders
