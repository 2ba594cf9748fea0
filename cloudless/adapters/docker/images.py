"""Have a task's image at hand: look for it, fetch it if the policy says so, a few at a time.

Tasks that need one image wait for one pull. A pull that says nothing for long is given up; the engine keeps the layers
it has, so the next try goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cloudless.adapters.docker.engine import Engine
from cloudless.adapters.docker.faults import Refused, explain_pull
from cloudless.adapters.docker.stream import ask_stream, json_lines
from cloudless.core.model import ImagePullPolicy
from cloudless.errors import ImageMissing

Say = Callable[[str], None]


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = asyncio.Semaphore(engine.limits.pulls_max)
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, image: str, policy: ImagePullPolicy, say: Say) -> None:
        """Return once the image is there. Raises ImageMissing (it cannot be had) or Temporary."""
        if policy is not ImagePullPolicy.ALWAYS and await self._is_here(image):
            return
        if policy is ImagePullPolicy.NEVER:
            raise ImageMissing(
                f"image {image} is not on this node", hint="imagePullPolicy is NEVER: load it here, or allow pulling"
            )
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull(image)
            pull.task = asyncio.create_task(self._run(pull))
        pull.listeners.append(say)
        say(pull.words)
        try:
            await asyncio.shield(pull.task)
        finally:
            pull.listeners.remove(say)
            if not pull.listeners and not pull.task.done():
                pull.task.cancel()
                self._pulls.pop(image, None)

    async def _is_here(self, image: str) -> bool:
        try:
            await self._engine.call(lambda client: client.inspect_image(image))
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    async def _run(self, pull: _Pull) -> None:
        try:
            async with self._slots:
                await self._pull(pull)
        except Refused as refused:
            raise explain_pull(pull.image, refused.message) from refused
        finally:
            if self._pulls.get(pull.image) is pull:
                del self._pulls[pull.image]

    async def _pull(self, pull: _Pull) -> None:
        limits, loop = self._engine.limits, asyncio.get_running_loop()
        said_s = loop.time()
        async with self._engine.stream(
            lambda client: _ask_pull(client, pull.image, limits.pull_silence_s), json_lines
        ) as messages:
            async for message in messages:
                if "error" in message:
                    raise explain_pull(pull.image, str(message["error"]))
                pull.take(message)
                if loop.time() - said_s >= limits.progress_period_s:
                    said_s = loop.time()
                    pull.tell()


class _Pull:
    """One pull under way: who listens, and how many bytes of each layer have come."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.listeners: list[Say] = []
        self.task: asyncio.Task[None]
        self._layers: dict[str, tuple[int, int]] = {}

    @property
    def words(self) -> str:
        done, total = (sum(layer[n] for layer in self._layers.values()) for n in (0, 1))
        amount = f": {done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else ""
        return f"pulling image {self.image}{amount}"

    def take(self, message: dict[str, Any]) -> None:
        layer, detail = str(message.get("id", "")), message.get("progressDetail") or {}
        if message.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif message.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)

    def tell(self) -> None:
        for say in list(self.listeners):
            say(self.words)


def _ask_pull(client: Any, image: str, silence_s: float) -> Any:
    from docker import auth, utils

    repository, tag = utils.parse_repository_tag(image)
    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(client, registry)
    return ask_stream(
        client,
        "POST",
        "/images/create",
        params={"fromImage": repository, "tag": tag or "latest"},
        headers={"X-Registry-Auth": header} if header else None,
        silence_s=silence_s,
    )
