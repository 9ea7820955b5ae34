"""The finished picture as a JPEG that says how it was made and nothing about the customer."""

import io
import json
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
from PIL import Image

_QUALITY = 92
PROVIDER = "local-composite"


def encode_jpeg(
    picture: npt.NDArray[np.uint8], preset: str, seed: int, ignored: tuple[str, ...]
) -> bytes:
    """Encode H x W x 3 RGB; the label stands both in the comment (JSON) and in XMP."""
    label = {
        "provider": PROVIDER,
        "preset": preset,
        "seed": seed,
        "ignored": list(ignored),
    }
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:darkroom="urn:darkroom:studio:1"'
        f" darkroom:provider={quoteattr(PROVIDER)} darkroom:preset={quoteattr(preset)}"
        f' darkroom:seed="{seed}" darkroom:ignored={quoteattr(" ".join(ignored))}/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(
        buffer,
        format="JPEG",
        quality=_QUALITY,
        subsampling=0,
        comment=json.dumps(label, separators=(",", ":"), sort_keys=True).encode(),
        xmp=packet.encode(),
    )
    return buffer.getvalue()
