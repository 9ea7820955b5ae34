"""A small model of the older design of the shop, to be put on the same torture as Darkroom (README.md)."""

from bench.previous_design.design import PreviousDesign
from darkroom.torture.design import Design

DESIGN: Design = PreviousDesign()
