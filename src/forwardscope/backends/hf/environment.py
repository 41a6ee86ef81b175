"""What computes the values: device, processor, settings of torch, builds of the libraries."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Final

import torch

__all__ = ["KNOWN_CODE", "environment", "foreign_code", "quantisers"]

#: Settings of torch that decide the precision of a product, below `torch.` or `torch.backends.`.
_PRECISION: Final = (
    "get_float32_matmul_precision",
    "backends.fp32_precision",
    "backends.mkldnn.matmul.fp32_precision",
    "backends.cuda.matmul.fp32_precision",
    "backends.cuda.matmul.allow_tf32",
    "backends.cuda.matmul.allow_bf16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_fp16_reduced_precision_reduction",
    "backends.cuda.matmul.allow_fp16_accumulation",
    "backends.cudnn.allow_tf32",
)
#: Settings of torch that select among its kernels.
_KERNELS: Final = (
    "are_deterministic_algorithms_enabled",
    "backends.mkldnn.enabled",
    "backends.cuda.flash_sdp_enabled",
    "backends.cuda.mem_efficient_sdp_enabled",
    "backends.cuda.math_sdp_enabled",
    "backends.cuda.cudnn_sdp_enabled",
    "backends.cuda.preferred_blas_library",
    "backends.cudnn.enabled",
    "backends.cudnn.deterministic",
    "backends.cudnn.benchmark",
    "backends.mha.get_fastpath_enabled",
)
#: Environment variables with which the libraries below torch select theirs.
_VARIABLES: Final = (
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
_QUANTISERS: Final = (
    "auto-round",
    "autoawq",
    "bitsandbytes",
    "compressed-tensors",
    "gptqmodel",
    "hqq",
    "kernels",
    "optimum-quanto",
    "torchao",
)
#: Packages whose versions are in each identity.
KNOWN_CODE: Final = frozenset(("torch", "transformers", "peft"))
#: Fields of /proc/cpuinfo that name a processor, and those that list its instructions.
_CPU_FIELDS: Final = (
    "model name",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
)
_CPU_FLAGS: Final = ("flags", "Features")
#: Instructions that compute; others differ between kernels and virtual machines.
_COMPUTES: Final = re.compile(r"s?sse|avx|amx|fma|f16c|fp|asimd|neon|sve|sme|i8mm|bf16|vmx|vsx")


def environment(device: torch.device) -> dict[str, str]:
    """Return what computes on a device, as short texts by name.

    The number of threads decides how sums are divided on the CPU alone. torch can
    change its settings at any time, so they are read at each call.
    """
    return {
        "device": _device(device),
        "CPU instruction set": _instructions(),
        **({"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}),
        "matmul precision": _values(_PRECISION),
        "kernel settings": ", ".join([_values(_KERNELS), *_variables()]),
        **_builds(),
    }


def quantisers() -> str:
    """Return the installed quantisers with their versions."""
    return ", ".join(f"{name} {found}" for name in _QUANTISERS if (found := _version(name)))


def foreign_code(model: torch.nn.Module) -> str | None:
    """Return the packages whose modules are in a model besides torch, transformers and PEFT.

    Returns:
        Their names and versions; None where a module is of no installed package, so that
        no version says what it computes.
    """
    roots = {type(module).__module__.partition(".")[0] for module in model.modules()}
    found = []
    for root in sorted(roots - KNOWN_CODE):
        packages = packages_distributions().get(root, [])
        if not packages:
            return None
        found += [f"{name} {version(name)}" for name in sorted(set(packages))]
    return ", ".join(found)


@functools.cache
def _builds() -> Mapping[str, str]:
    build = torch.__config__.show()
    build = re.sub(r"\n.*CPU capability.*", "", build)  # the machine's, not the build's
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {
        "torch build": f"{torch.__version__}, CUDA {torch.version.cuda}, ROCm "
        f"{torch.version.hip}, cuDNN {cudnn}, {build.strip()}",
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
    }


def _device(device: torch.device) -> str:
    if device.type == "cpu":
        return f"cpu: {_processor()}"
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return (
            f"cuda: {found.name}, capability {found.major}.{found.minor}, "
            f"{found.multi_processor_count} multiprocessors"
        )
    if device.type == "mps":  # its kernels are a part of the system
        return f"mps: {platform.processor()}, macOS {platform.mac_ver()[0]}"
    return f"{device.type}: {torch.get_device_module(device).get_device_name(device)}"


def _processor() -> str:
    fields = _cpuinfo()
    found = [f"{name} {fields[name]}" for name in _CPU_FIELDS if name in fields]
    return ", ".join(found) or platform.processor() or platform.machine()


@functools.cache
def _instructions() -> str:
    fields = _cpuinfo()
    flags = {flag for name in _CPU_FLAGS for flag in fields.get(name, "").split()}
    usable = " ".join(sorted(flag for flag in flags if _COMPUTES.match(flag)))
    return f"{torch.backends.cpu.get_cpu_capability()}: {usable}"


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """Return the fields of this machine's first processor; empty where there is no such file."""
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}
    return {}


def _values(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {_value(name)}" for name in names)


def _value(name: str) -> object:
    """Return a setting of torch; None where this release has none or refuses to say it."""
    try:
        value: Any = functools.reduce(getattr, name.split("."), torch)
        return value() if callable(value) else value
    except (AttributeError, RuntimeError):  # some refuse while a newer setting is in use
        return None


def _variables() -> Iterator[str]:
    return (f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
