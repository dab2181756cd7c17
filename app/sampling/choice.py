"""Which sampler a run uses: the checkpoint's own, a named one, and single settings on top."""

from collections.abc import Collection, Mapping
from typing import Any

from app.config.validate import parse
from app.errors import UserError
from app.sampling.inputs import Task
from app.sampling.settings import SamplerSettings

OF_THE_MODEL = (
    "min_t", "translation_noise", "rotation_rate", "tokens", "token_step", "token_temperature", "token_noise",
)  # fmt: skip
"""What belongs to the trained model: a named sampler leaves it alone. The rest tells one sampler from another."""

_TOKENS = ("tokens", "token_step", "token_temperature", "token_noise", "resample_unmasked", "sequence")
_FRAMES = ("translation_noise", "rotation_schedule", "rotation_rate", "half_turn")
_IDLE = {
    Task.UNCONDITIONAL: (("fixed_t", "given_tokens_as_one_hot"), "nothing is given"),
    Task.PARTIAL: (("fixed_t", "given_tokens_as_one_hot"), "both sequence and structure are designed"),
    Task.FORWARD_FOLDING: (_TOKENS, "the sequence is given"),
    Task.INVERSE_FOLDING: ((*_FRAMES, "given_tokens_as_one_hot"), "the structure is given"),
}
"""Settings that a task never reads, and why."""


def choose_sampler(
    trained: SamplerSettings,
    section: Mapping[str, Any],
    named: bool,
    typed: Collection[str],
    task: Task,
    told: str | None = None,
) -> SamplerSettings:
    """The sampler of a run.

    trained: that of the checkpoint's recipe. section: the config's `sampler`, None where nothing is said. named: the
    user chose a sampler by name, so that section holds all of it. typed: the settings that the user gave one by one.
    task: the sampler's; told: how the user put it.
    Raises UserError for values that do not fit, and for typed settings that cannot take effect.
    """
    said = {key: value for key, value in section.items() if value is not None}
    if named:
        said = {key: value for key, value in said.items() if key in typed or key not in OF_THE_MODEL}
    sampler = parse(SamplerSettings, trained.model_dump() | said, where="sampler")
    for key in typed:
        if reason := _idle(key, sampler, task, told or f"task={task.value}"):
            raise UserError(f"sampler.{key} has no effect {reason}: leave it out")
    return sampler


def _idle(key: str, sampler: SamplerSettings, task: Task, told: str) -> str | None:
    """Why a setting cannot take effect, or None."""
    if key == "name":
        return "by itself, a named sampler is chosen with sampler=NAME"
    keys, why = _IDLE[task]
    if key in keys:
        return f"with {told}, where {why}"
    if key == "rotation_rate" and sampler.rotation_schedule != "exponential":
        return f"with sampler.rotation_schedule={sampler.rotation_schedule}"
    if key == "resample_unmasked" and sampler.token_step != "plain":
        return f"with sampler.token_step={sampler.token_step}"
    return None
