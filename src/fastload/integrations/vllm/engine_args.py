"""Names in vLLM's arguments: what fastload finds becomes the folder where it is, before vLLM asks the hub for it.

vLLM reads a model's config before any loader runs, and offline it looks names up even before that
(``EngineArgs.__post_init__`` → ``get_model_path``). Both are found in ``vllm.engine.arg_utils`` when they are called,
so that is where they are wrapped. With another load format, vLLM does and says what it does without fastload.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from typing import TYPE_CHECKING, Any

from fastload.integrations.extra_config import NAMES, parse_extra_config
from fastload.integrations.names import bring, is_name
from fastload.integrations.vllm.names import with_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from fastload._fetch.find.resolve import Snapshot
    from fastload.options import Options

    Bring = Callable[[str, str | None], Snapshot]

_LOAD_FORMAT = "fastload"
_DRAFT_LOAD, _EXTRA = "draft_load_config", "model_loader_extra_config"
_WITHOUT_DRAFT = frozenset({"ngram", "[ngram]", "ngram_gpu", "suffix", "extract_hidden_states", "custom_class"})
"""Ways to speculate for which ``model`` names no model (vLLM 0.27 to 0.33, ``config/speculative.py``)."""
_log = logging.getLogger("vllm.fastload")


class Typed(str):  # noqa: SLOT000 - vLLM copies and compares it like the str that it is
    """What vLLM makes of a name while it is offline: the path in the hub's cache, or the name itself.

    Only later is it known whether fastload shall load it, so what the user typed, and vLLM's error, go along.
    """

    typed: str
    error: Exception | None

    @classmethod
    def of(cls, text: str, typed: str, error: Exception | None) -> Typed:
        """``text``, with the rest."""
        made = cls(text)
        made.typed, made.error = typed, error
        return made

    def plain(self) -> str:
        """What vLLM would have gone on with without fastload, or the error by which it would have ended."""
        if self.error is not None:
            raise self.error
        return str(self)


def wrap(arg_utils: ModuleType) -> None:
    """Wrap what looks names up in ``vllm.engine.arg_utils``; if something is missing there, nothing is changed."""
    look_up = getattr(arg_utils, "get_model_path", None)
    engine_args = getattr(arg_utils, "EngineArgs", None)
    create = getattr(engine_args, "create_engine_config", None)
    if not callable(look_up) or not callable(create):
        _log.warning("this vLLM looks names up elsewhere: with --load-format fastload, give paths (fastload resolve)")
        return
    arg_utils.get_model_path = _looking_up(look_up)  # type: ignore[attr-defined] # that is the point
    engine_args.create_engine_config = _creating(create)  # type: ignore[union-attr]
    create_model = getattr(engine_args, "create_model_config", None)
    if callable(create_model):  # which the one above calls; some ask for no more
        engine_args.create_model_config = _creating(create_model)  # type: ignore[union-attr]


def _looking_up(look_up: Callable[..., Any]) -> Callable[..., Any]:
    """The ``get_model_path`` of vLLM, whose failure waits until it is known who loads."""

    @functools.wraps(look_up)
    def get_model_path(model: Any, *args: Any, **kwargs: Any) -> Any:
        typed = str(model)
        if not is_name(typed):
            return look_up(model, *args, **kwargs)
        try:
            found = look_up(model, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the hub's client has many; it is raised again, or not needed
            return Typed.of(typed, typed, error)
        return Typed.of(str(found), typed, None)

    return get_model_path


def _creating(create: Callable[..., Any]) -> Callable[..., Any]:
    """A method of vLLM that makes a config of its arguments, with folders for names."""

    @functools.wraps(create)
    def create_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        _use_folders(self)
        for name in ("model", "tokenizer"):
            given = getattr(self, name)
            if isinstance(given, Typed):
                setattr(self, name, given.plain())
        return create(self, *args, **kwargs)

    return create_config


def _use_folders(engine_args: Any) -> None:
    """Put the folder where a name was found in its place, for what fastload is to load.

    A draft model has a load format of its own, and settings, where ``draft_load_config`` is given.
    """
    speculative = getattr(engine_args, "speculative_config", None)
    draft_load = speculative.get(_DRAFT_LOAD) if isinstance(speculative, dict) else None
    if _is_ours(engine_args.load_format):
        extra = parse_extra_config(engine_args.model_loader_extra_config, engine_args.download_dir)
        names = dict(extra.names)
        _use_folder_of_model(engine_args, _bringing(engine_args, extra.options), names)
        if draft_load is None:
            _use_folder_of_draft(engine_args, _bringing(engine_args, extra.options), names)
        if names:
            engine_args.model_loader_extra_config = {**engine_args.model_loader_extra_config, NAMES: names}
    if draft_load is not None and _is_ours(_field(draft_load, "load_format", "auto")):
        _use_own_loader_of_draft(engine_args, draft_load)


def _is_ours(load_format: Any) -> bool:
    return str(load_format).lower() == _LOAD_FORMAT


def _use_folder_of_model(engine_args: Any, bringing: Bring, names: dict[str, str]) -> None:
    """Of its tokenizer, too."""
    typed = getattr(engine_args.model, "typed", engine_args.model)
    if is_name(typed):
        engine_args.model = _folder_of(typed, engine_args.revision, bringing, names)
        engine_args.served_model_name = engine_args.served_model_name or typed
        if getattr(engine_args.tokenizer, "typed", engine_args.tokenizer) == typed:
            engine_args.tokenizer = engine_args.model


def _use_folder_of_draft(engine_args: Any, bringing: Bring, names: dict[str, str]) -> None:
    speculative = engine_args.speculative_config
    if isinstance(speculative, dict) and _names_draft(speculative):
        folder = _folder_of(speculative["model"], speculative.get("revision"), bringing, names)
        engine_args.speculative_config = {**speculative, "model": folder}  # theirs stays as they wrote it
    draft = vars(engine_args).get("spec_model")
    if isinstance(draft, str) and draft not in _WITHOUT_DRAFT and is_name(draft):
        engine_args.spec_model = _folder_of(draft, (speculative or {}).get("revision"), bringing, names)


def _use_own_loader_of_draft(engine_args: Any, load: Any) -> None:
    """By the settings of ``load``, a table or vLLM's object; its loader is told the name there."""
    own = _field(load, _EXTRA, {})
    extra = parse_extra_config(own, _field(load, "download_dir", None))
    names = dict(extra.names)
    _use_folder_of_draft(engine_args, _bringing(engine_args, extra.options), names)
    if isinstance(load, dict):
        told: Any = {**load, _EXTRA: {**own, NAMES: names}}
    else:
        told = copy.copy(load)
        setattr(told, _EXTRA, {**own, NAMES: names})
    if names:
        engine_args.speculative_config = {**engine_args.speculative_config, _DRAFT_LOAD: told}


def _field(load: Any, name: str, default: Any) -> Any:
    return load.get(name, default) if isinstance(load, dict) else getattr(load, name, default)


def _names_draft(speculative: Mapping[str, Any]) -> bool:
    """True where ``model`` is a draft model's, and not a way to speculate without one, or the name of a class."""
    draft, method = speculative.get("model"), speculative.get("method")
    if not isinstance(draft, str) or {draft, method} & _WITHOUT_DRAFT:
        return False
    is_class = method is None and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", draft) is not None
    return is_name(draft) and not is_class


def _bringing(engine_args: Any, options: Options) -> Bring:
    """With the token of ``--hf-token``."""
    return functools.partial(bring, options=options, token=getattr(engine_args, "hf_token", None))


def _folder_of(name: str, revision: str | None, bringing: Bring, names: dict[str, str]) -> str:
    found = bringing(name, revision)
    names[found.path] = with_revision(name, revision)
    _log.info("%s is in %s (%s)", names[found.path], found.path, found.tier)
    return found.path
