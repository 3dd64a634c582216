"""What model-signing signed before 1.0: the files are the subjects of the statement, and the predicate says nothing.

::

    {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://model_signing/Digests/v0.1",
     "subject": [{"name": "config.json", "digest": {"sha256": "…"},
                  "annotations": {"actual_hash_algorithm": "file-sha256"}}, …],
     "predicate": {"unused": "Unused, just passed due to API requirements"}}

A digest is called sha256 whatever it is; the annotation tells. Which files were left out on purpose nothing tells: none
may be. Of its other types, of shards or of one digest over all, 1.0 knows nothing any more, and neither do we.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastload._verify.fields import as_array, as_object, as_text, refusal
from fastload.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDER_PREDICATE = "https://model_signing/Digests/v0.1"
_SHA256 = "file-sha256"
_ALGORITHMS = {_SHA256: "sha256", "file-blake2b": "blake2b"}


def as_predicate(statement: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The predicate by which model-signing 1.0 says what ``statement``, of the older type, says by its subjects.

    Raises:
        SignatureError: it cannot be said so.
    """
    if "resources" in as_object(statement.get("predicate", {}), "a predicate", path):
        found = f"the predicateType: {quoted(OLDER_PREDICATE)}, and resources"
        raise refusal(path, found, "files as subjects, or as resources")  # two readers could see two models
    resources = [_as_resource(each, path) for each in as_array(statement.get("subject"), "subject", path)]
    algorithm = resources[0]["algorithm"] if resources else "sha256"
    return {"serialization": {"method": "files", "hash_type": algorithm}, "resources": resources}


def _as_resource(value: Any, path: str) -> dict[str, Any]:
    subject = as_object(value, "a subject", path)
    digests = as_object(subject.get("digest"), "the digest of a subject", path)
    annotations = as_object(subject.get("annotations", {}), "annotations", path)
    said = as_text(annotations.get("actual_hash_algorithm", _SHA256), "an actual_hash_algorithm", path)
    if said not in _ALGORITHMS:
        raise refusal(path, f"the actual_hash_algorithm {quoted(said)}", " or ".join(_ALGORITHMS))
    return {"name": subject.get("name"), "algorithm": _ALGORITHMS[said], "digest": digests.get("sha256")}
