"""What a run must remember to go on as if it had not been stopped."""

import zlib
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from tfcourse.data.pairs import Batch
from tfcourse.training.checkpoint import CheckpointError, Saved
from tfcourse.training.compute import Accelerator, gather_object, whole
from tfcourse.training.generators import generator_states, set_generator_states
from tfcourse.training.history import History


@dataclass
class TrainingState:
    """The parts of a run that change at each step."""

    model: nn.Module
    optimizer: Optimizer
    history: History
    accelerator: Accelerator
    device: torch.device
    average: AveragedModel | None = None
    scaler: GradScaler | None = None

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors of each file; every process must call it."""
        found = {
            "model": _whole(self.model.state_dict()),
            "optimizer": _whole(_optimizer_tensors(self.model, self.optimizer)),
        }
        if self.average is not None:
            found["average"] = _whole(self.average.state_dict())
        return found

    def facts(self, batch: Batch) -> dict[str, Any]:
        """Return everything else, fit for JSON; every process must call it.

        The step is the position in the data; `batch`, the step's, tells it from other
        data when the run goes on.
        """
        return {
            "history": self.history.to_json(),
            "batch": fingerprint(batch),
            "optimizer": type(self.optimizer).__name__,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "generators": gather_object([generator_states(self.device)]),
        }

    def check(self, saved: Saved) -> None:
        """Raise `CheckpointError` if a checkpoint is not one of this run."""
        theirs, mine = saved.facts["optimizer"], type(self.optimizer).__name__
        if theirs != mine:
            raise CheckpointError(f"{saved.path} is of {theirs}, the run of {mine}")
        if (saved.facts["scaler"] is None) != (self.scaler is None):
            raise CheckpointError(f"{saved.path} and the run differ in precision")
        expected = {"model": self.model.state_dict()}
        if self.average is not None:
            expected["average"] = self.average.state_dict()
        if set(saved.tensors) != {"optimizer", *expected}:
            raise CheckpointError(
                f"{saved.path} holds {sorted(saved.tensors)}, the run "
                f"{sorted({'optimizer', *expected})}"
            )
        for name, tensors in expected.items():
            _compare(f"{saved.path}: {name}", saved.tensors[name], tensors)
        parameters = dict(self.model.named_parameters())
        for name, tensor in saved.tensors["optimizer"].items():
            owner = parameters.get(name.rpartition("/")[0])
            if owner is None or tensor.shape not in (owner.shape, torch.Size()):
                raise CheckpointError(
                    f"{saved.path}: the model has no parameter for {name} of shape "
                    f"{tuple(tensor.shape)}"
                )

    @torch.no_grad()
    def restore(self, saved: Saved) -> None:
        """Become what a checkpoint says, of whatever number of processes it is.

        A process that was not there starts its generator from its own seed.
        """
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(_like(saved.tensors["model"][name], tensor))
        if self.average is not None:
            self.average.load_state_dict(saved.tensors["average"])
        _load_optimizer(self.model, self.optimizer, saved.tensors["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(saved.facts["scaler"])
        self.history.load_json(saved.facts["history"])
        index = self.accelerator.process_index
        if index < len(saved.facts["generators"]):
            set_generator_states(saved.facts["generators"][index], self.device)


def fingerprint(batch: Batch) -> int:
    """Return a checksum of what a batch holds."""
    checksum = 0
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            checksum = zlib.crc32(value.cpu().numpy().tobytes(), checksum)
    return checksum


def _parameter_names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in its own order."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer.param_groups
    return [name_of[id(p)] for group in groups for p in group["params"]]


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state by `parameter/quantity`."""
    names = _parameter_names(model, optimizer)
    return {
        f"{names[index]}/{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None  # a momentum that has not begun
    }


def _load_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]
) -> None:
    parameters = dict(model.named_parameters())
    place = {n: i for i, n in enumerate(_parameter_names(model, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        owner = parameters[parameter]
        mine = _like(tensor, owner) if tensor.dim() else tensor
        state.setdefault(place[parameter], {})[key] = mine
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _whole(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: whole(tensor).detach() for name, tensor in tensors.items()}


def _like(saved: Tensor, mine: Tensor) -> Tensor:
    """Divide a whole tensor among processes as `mine` is."""
    if not hasattr(mine, "full_tensor"):
        return saved
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(mine, DTensor)
    there = saved.to(mine.device)
    return distribute_tensor(there, mine.device_mesh, mine.placements)


def _compare(what: str, saved: dict[str, Tensor], mine: dict[str, Tensor]) -> None:
    """Name the first tensor that one of the two lacks, or has in another form."""
    for name in sorted({*saved, *mine}):
        pair = [
            f"{t[name].dtype} {tuple(t[name].shape)}" if name in t else "missing"
            for t in (saved, mine)
        ]
        if pair[0] != pair[1]:
            raise CheckpointError(
                f"{what} has {name}: {pair[0]}, where the run has {pair[1]}"
            )
