"""The machine that figures were made on, and what is installed there."""

import os
import platform
from pathlib import Path

import torch

from app import __version__, environment
from app.devices import MPS, NVIDIA
from app.ops import account, select


def describe(device: torch.device, named: str = "default") -> dict[str, str]:
    """What to know beside a figure, in words, by what it is. named: the environment that was applied."""
    about = {"machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"}
    if device.type == NVIDIA:
        properties = torch.cuda.get_device_properties(device)
        about["GPU"] = (
            f"{properties.name}, capability {properties.major}.{properties.minor},"
            f" {properties.total_memory / 2**30:.0f} GiB, {properties.multi_processor_count} multiprocessors"
        )
    about["python"] = f"{platform.python_version()}, trunkline {__version__}"
    about["torch"] = f"{torch.__version__}, {_threads(device)}"
    installed = account.packages().items()
    about["packages"] = ", ".join(f"{name} {version or 'not installed'}" for name, version in installed)
    about["kernels"] = str(select.settings()).replace("'", "")
    about["environment"] = ", ".join([named, *(f"{name}={value}" for name, value in environment.report().items())])
    about["precision"] = (
        f"float32 products {torch.get_float32_matmul_precision()}, in cuDNN"
        f" {'TF32' if torch.backends.cudnn.allow_tf32 else 'float32'}"
    )
    return about


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _threads(device: torch.device) -> str:
    if device.type == NVIDIA:
        return f"CUDA {torch.version.cuda}"
    if device.type == MPS:
        return "Metal"
    bfloat16 = "bfloat16 in hardware" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "bfloat16 emulated"
    return f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {bfloat16}"
