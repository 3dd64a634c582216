"""Who owns the name ``fastload`` here, which token is seen, and whether the hub's own tools look in the same place."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload._store.hub.access import find_token
from fastload._tier import TierKind
from fastload.errors import DeadlineError, HubError
from fastload.ops.doctor.finding import FATAL, NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload.options import Settings

_OURS = "fastload-llm"
_REPLACE = (
    'test -e "$from" && pip uninstall -y {} && pip install --force-reinstall --no-deps "$from"'
    "  # docs/install.md: how to get one of fastload-llm"
)
"""What is to be installed comes first: the other's removal takes files of ours with it."""
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What was installed, and what it may ask for."""

    owners: tuple[str, ...]
    """The distributions that have files in the package ``fastload``."""
    has_token: bool | None
    """For the hub; None: it was not looked for, since the hub is not asked."""
    token_problem: str = ""


def look_at_installation(settings: Settings) -> Installation:
    """Ask the packages' metadata and, where the hub may be asked, huggingface_hub for a token, which is not shown."""
    owners = tuple(sorted(set(metadata.packages_distributions().get("fastload", ()))))
    if TierKind.HUB not in settings.tiers or settings.hub.is_offline:
        return Installation(owners=owners, has_token=None)
    looking = Deadline(_PATIENCE_S, "looking for a token of the hub", grace_s=0.0)
    try:
        return Installation(owners=owners, has_token=bool(looking.within(lambda: find_token(settings.hub.endpoint))))
    except HubError as exc:
        return Installation(owners=owners, has_token=False, token_problem=exc.reason)
    except DeadlineError:
        problem = f"where tokens of the hub are kept (HF_HOME, HF_TOKEN_PATH) did not answer within {_PATIENCE_S:.0f} s"
        return Installation(owners=owners, has_token=False, token_problem=problem)


def judge_owners(owners: Sequence[str]) -> Iterator[Finding]:
    """Whether files of somebody else's package lie among ours."""
    foreign = [owner for owner in owners if owner.lower().replace("_", "-") != _OURS]
    if foreign:
        yield Finding(
            severity=FATAL,
            what=f"the package fastload belongs to {', '.join(owners)}",
            why="the distribution fastload on PyPI is another project: each overwrites files of the other",
            cure=f"from=/path/of/a/wheel/or/clone; {_REPLACE.format(' '.join(foreign))}",
        )


def judge_hub(installation: Installation, settings: Settings) -> Iterator[Finding]:
    """What will go wrong with a gated model, and with tools beside fastload."""
    if installation.token_problem:
        yield Finding(
            severity=WARNING,
            what=installation.token_problem,
            why="gated and private models end with 11",
            cure="hf auth login, or set HF_TOKEN (in Kubernetes from a Secret: env: [{name: HF_TOKEN, valueFrom: "
            "{secretKeyRef: {name: hf-token, key: token}}}])",
        )
    elif installation.has_token is False:
        yield Finding(
            severity=NOTE,
            what="no token for the hub is seen (HF_TOKEN, HF_TOKEN_PATH, hf auth login)",
            why="gated and private models end with 11, and the hub gives anonymous users less",
            cure="env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hf-token, key: token}}}]",
        )
    yield from _judge_caches(settings)


def _judge_caches(settings: Settings) -> Iterator[Finding]:
    if TierKind.LOCAL in settings.tiers and settings.local != settings.hub.cache:
        yield Finding(
            severity=NOTE,
            what=f"FASTLOAD_LOCAL is {settings.local}, and the hub's own tools look in {settings.hub.cache}",
            why="what fastload brings is not found by vLLM, transformers and hf by its name, and is downloaded twice",
            cure=f"export HF_HUB_CACHE={settings.local}; or unset local ({settings.origins.get('local', 'default')})",
        )
    home = settings.hub.home
    if home and settings.hub.cache != f"{home}/hub" and settings.hub.is_cache_named:
        yield Finding(
            severity=NOTE,
            what=f"HF_HUB_CACHE is {settings.hub.cache}, and HF_HOME is {home}",
            why="models lie in the first, the token and all else of the hub's tools in the second: both need a volume",
            cure=f"export HF_HUB_CACHE={home}/hub, or mount both",
        )
