"""What models that only forecast ask of the data."""

from dlrun.contracts import DataSpec, Kind, Task
from dlrun.errors import ContractError


def require_series(model: str, spec: DataSpec) -> int:
    """The steps a forecast is made from. Raises: ContractError if `spec` does not say what is to be forecast."""
    if spec.task is not Task.FORECASTING:
        raise ContractError(
            f"model={model} forecasts series, but the task of data={spec.name} is {spec.task.value}; take a series, "
            "such as data=etth1 or data=noisy_sine, or another model"
        )
    spec.require(model, Kind.SEQUENCE)
    if not spec.target_columns or spec.horizon * len(spec.target_columns) != spec.num_outputs:
        raise ContractError(
            f"model={model} must know what to forecast: the spec of data={spec.name} has horizon={spec.horizon} and "
            f"target_columns={spec.target_columns} for {spec.num_outputs} outputs"
        )
    return spec.shape[0]
