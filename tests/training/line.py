"""The smallest thing to train: a function of four numbers. It stands alone because the processes that torchrun starts import it."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Line(nn.Module):
    """A network with dropout, so that the state of torch's generator matters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (self.net(batch["x"]) - batch["y"]).square().mean()}

    def parameter_groups(self) -> list[dict[str, object]]:
        return [{"params": list(self.parameters()), "lr_scale": 1.0}]


class Points(Dataset):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        x = torch.randn(4, generator=torch.Generator().manual_seed(1000 * epoch + index))
        return {"x": x, "y": x.sum().view(1)}
