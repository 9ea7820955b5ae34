"""The tasks of kie.ai's stand-in: what may be ordered, how far one is, what its record looks like."""

import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import Any, Final, cast

from PIL import Image

MEDIA_TYPES: Final = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}
_STATES: Final = ("waiting", "queuing", "generating")
_ASPECTS: Final = frozenset(
    ["1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9", "auto"]
)
_SIZES: Final = ("1K", "2K", "4K")


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one model accepts. The first format and size are its defaults."""

    images: str
    images_max: int
    images_min: int
    prompt_max: int
    formats: tuple[str, ...]
    sizes: tuple[str, ...] = ("1K",)


_MODELS: Final = {
    "nano-banana-pro": _Rules("image_input", 8, 0, 10_000, ("png", "jpg"), _SIZES),
    "nano-banana-2": _Rules("image_input", 14, 0, 20_000, ("jpg", "png"), _SIZES),
    "nano-banana-2-lite": _Rules("image_urls", 10, 0, 20_000, ("png",)),
    "google/nano-banana-edit": _Rules("image_urls", 10, 1, 5_000, ("png", "jpeg")),
}


@dataclass(slots=True)
class TwinTask:
    """One task: what was ordered, how far it is, how it ended."""

    id: str
    order: dict[str, Any]
    created_at: float
    asks: int = 0
    state: str = _STATES[0]
    fail_code: str = ""
    fail_text: str = ""
    credits: float = 0
    ended_at: float | None = None
    is_doomed: bool = False
    painted: bytes | None = field(default=None, repr=False)

    @property
    def param(self) -> str:
        """The original request the way kie.ai keeps it: JSON, with `input` as JSON once more."""
        return json.dumps(self.order | {"input": json.dumps(self.order["input"])})

    @property
    def callback_url(self) -> str:
        """Where its end is told, or nothing."""
        return str(self.order.get("callBackUrl") or "")

    @property
    def token(self) -> str:
        """The last part of its callback address."""
        return self.callback_url.rpartition("/")[2]

    @property
    def input_links(self) -> list[str]:
        """Where kie.ai is to fetch the references."""
        links: list[str] = self.order["input"].get(_MODELS[self.order["model"]].images, [])
        return links

    @property
    def wish(self) -> str:
        """What is to be painted, as text. Links are named without what signs them: that is new at each try."""
        images = _MODELS[self.order["model"]].images
        links = [link.partition("?")[0] for link in self.input_links]
        wish = self.order["input"] | ({images: links} if links else {})
        return json.dumps(wish, sort_keys=True)

    @property
    def extension(self) -> str:
        """Of the file it becomes."""
        formats = _MODELS[self.order["model"]].formats
        return str(self.order["input"].get("output_format", formats[0]))

    def picture(self) -> bytes:
        """What was painted for it; else a small picture that only this request gives, and always gives."""
        if self.painted is not None:
            return self.painted
        noise = hashlib.shake_256(self.param.encode()).digest(8 * 8 * 3)
        small = Image.frombytes("RGB", (8, 8), noise)
        buffer = io.BytesIO()
        small.resize((96, 128), Image.Resampling.NEAREST).save(
            buffer, format="PNG" if self.extension == "png" else "JPEG"
        )
        return buffer.getvalue()

    def asked(self) -> None:
        """A question moves a running task on by a state."""
        self.asks += 1
        if self.ended_at is None:
            self.state = _STATES[min(self.asks, len(_STATES)) - 1]

    def record(self, result_url: str, credit_field: str, *, in_callback: bool) -> dict[str, Any]:
        """The record as recordInfo and callbacks show it: they count `costTime` differently."""
        done = self.ended_at is not None
        success = self.state == "success"
        cost_ms = round(((self.ended_at or self.created_at) - self.created_at) * 1000)
        return {
            "taskId": self.id,
            "model": self.order["model"],
            "state": self.state,
            "param": self.param,
            "resultJson": json.dumps({"resultUrls": [result_url]}) if success else None,
            "failCode": self.fail_code,
            "failMsg": self.fail_text,
            "costTime": cost_ms // 1000 if in_callback else cost_ms,
            "createTime": round(self.created_at * 1000),
            "updateTime": round((self.ended_at or self.created_at) * 1000),
            "completeTime": round(self.ended_at * 1000) if self.ended_at is not None else None,
            credit_field: self.credits if done else None,
        }


def mistake_in(order: dict[str, Any]) -> str | None:
    """Why kie.ai would answer 422 to this order, or None."""
    rules = _MODELS.get(str(order.get("model")))
    if rules is None or not isinstance(order.get("input"), dict):
        return "model or input is not supported"
    wish = cast("dict[str, Any]", order["input"])
    prompt: object = wish.get("prompt")
    images: list[object] = wish.get(rules.images, [])
    passed = {
        "prompt is required": isinstance(prompt, str) and bool(prompt),
        "prompt is too long": len(str(prompt)) <= rules.prompt_max,
        "images are required": len(images) >= rules.images_min,
        "too many images": len(images) <= rules.images_max,
        "images must be links": all(str(image).startswith("http") for image in images),
        "aspect_ratio is not within the range": wish.get("aspect_ratio", "1:1") in _ASPECTS,
        "output_format is not within the range": wish.get("output_format", rules.formats[0])
        in rules.formats,
        "resolution is not within the range": wish.get("resolution", rules.sizes[0]) in rules.sizes,
    }
    return next((text for text, fine in passed.items() if not fine), None)
