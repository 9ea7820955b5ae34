"""The person on the canvas, as the finishing styles need to know them."""

from dataclasses import dataclass

from darkroom.adapters.generation.studio.face import FACE_OVAL, FaceMesh
from darkroom.adapters.generation.studio.pixels import Picture, blur
from darkroom.adapters.generation.studio.retouch import features, region


@dataclass(frozen=True, slots=True)
class Sitter:
    """Matte (H x W, 0..1) and mesh in canvas pixels."""

    matte: Picture
    mesh: FaceMesh

    @property
    def face(self) -> Picture:
        """Soft H x W mask of the face."""
        shape = (self.matte.shape[0], self.matte.shape[1])
        return blur(region(self.mesh, (FACE_OVAL,), shape), 0.05 * self.mesh.height)

    @property
    def features(self) -> Picture:
        """Soft H x W mask of eyes, brows and lips: where likeness lives."""
        return features(self.mesh, (self.matte.shape[0], self.matte.shape[1]), 0.03)
