"""The section `model` of a suite file: a model that this process loads, or one of a server."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from forwardscope.backends.server_url import ServerUrl
from forwardscope.text import printable

__all__ = ["ModelSpec", "Section", "ServedModelSpec", "Text", "kind_of_model"]

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A mapping in a suite file, without unknown keys and without type conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSpec(Section):
    """Model, adapter or full fine-tune, device and dtype.

    Exactly one of `adapter` and `tuned` is given.
    `path`, `adapter` and `tuned` are paths that exist relative to the suite file;
    otherwise paths relative to the working directory, or hub ids.

    Attributes:
        path: Folder, `.gguf` file or hub id of the model.
        name: Name in results, metrics and spans; by default `path` as it is in
            the file.
        adapter: Folder or hub id of a LoRA adapter.
        tuned: Folder, `.gguf` file or hub id of a fully fine-tuned model.
        adapter_name: Name of the adapter or the tuned model in results, metrics and
            spans; by default its path as it is in the file.
        device: A torch device, or `auto`.
        dtype: Dtype of the weights in memory.
        one_at_a_time: With `tuned`: keep one model on the device and the other in the
            CPU's memory. It happens without this where both do not fit.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [key], "properties": {key: {"type": "string"}}}
                for key in ("adapter", "tuned")
            ]
        }
    )

    #: Name of this kind in the positions of validation errors.
    kind: ClassVar[str] = "a model that this process loads"

    path: Text
    name: Text | None = None
    adapter: Text | None = None
    tuned: Text | None = None
    adapter_name: Text | None = None
    device: Text = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    one_at_a_time: bool = False

    @property
    def label(self) -> str:
        """Name of the model, as printable text."""
        return printable(self.name or self.path)

    @property
    def adapter_label(self) -> str:
        """Name of the adapter or the tuned model, as printable text."""
        return printable(self.adapter_name or self.adapter or self.tuned or "")

    @property
    def has_adapter(self) -> bool:
        """Whether it may be scaled and randomised, as a LoRA adapter."""
        return self.tuned is None

    @model_validator(mode="after")
    def _check_tuned(self) -> ModelSpec:
        if (self.adapter is None) == (self.tuned is None):
            raise ValueError(
                "needs either adapter (a LoRA adapter) or tuned (a fully fine-tuned model)"
            )
        if self.one_at_a_time and self.tuned is None:
            raise ValueError("one_at_a_time is for tuned; an adapter needs one model alone")
        return self


def _server(url: str) -> str:
    ServerUrl.parse(url)
    return url


class ServedModelSpec(Section):
    """Model and adapter that a server holds.

    `adapter_dir`, `adapter_scratch` and `tokenizer` are paths that exist relative to the suite
    file; otherwise paths relative to the working directory.

    Attributes:
        server: URL of the server's API, such as `http://127.0.0.1:8000/v1`.
        name: The server's name of the model.
        adapter: The server's name of the adapter, or of a fine-tuned model.
        revision: What these names stand for now; without it nothing is kept in the store.
        adapter_dir: Folder with the adapter's files, which the server sees under the same
            path; for scaled and random adapters.
        adapter_scratch: Folder in which these are written; by default the one that has
            `adapter_dir`.
        tokenizer: Folder with the model's `tokenizer.json`; by default the server's own
            tokenizer is used.
        timeout: Seconds after which a request is given up.
        concurrency: Requests at a time.
    """

    kind: ClassVar[str] = "a model of a server"

    server: Annotated[Text, AfterValidator(_server)]
    name: Text
    adapter: Text
    revision: Text | None = None
    adapter_dir: Text | None = None
    adapter_scratch: Text | None = None
    tokenizer: Text | None = None
    timeout: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 300.0
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4

    @property
    def label(self) -> str:
        """Name of the model, as printable text."""
        return printable(self.name)

    @property
    def adapter_label(self) -> str:
        """Name of the adapter or the fine-tuned model, as printable text."""
        return printable(self.adapter)

    @property
    def has_adapter(self) -> bool:
        """Whether it may be scaled and randomised."""
        return self.adapter_dir is not None

    @property
    def device(self) -> str:
        """Where the weights are."""
        return ServerUrl.parse(self.server).name

    @model_validator(mode="after")
    def _check_names(self) -> ServedModelSpec:
        if self.name == self.adapter:
            raise ValueError("has the same name and adapter, and would be compared with itself")
        return self

    @property
    def dtype(self) -> str:
        """What stands for the dtype, which a server does not tell."""
        return "served"


def kind_of_model(section: Any) -> str:
    """Return the kind of a section: that of a server if it names one."""
    if isinstance(section, ModelSpec | ServedModelSpec):
        return section.kind
    served = isinstance(section, dict) and "server" in section
    return ServedModelSpec.kind if served else ModelSpec.kind
