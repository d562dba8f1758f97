"""vaedensity: variational autoencoders as densities, scores and archives."""

__version__ = "0.1.0"
