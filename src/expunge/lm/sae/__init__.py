"""Sparse autoencoders: a state as a sum of a few of many directions.

Definition (h a state [d], W_e [n, d], W_d [n, d] with rows of unit length where trained here):
    p  = W_e (h - b) + b_e                 what each latent gets
    z  = TopK( p )+                        the k largest, negative ones cut to 0        (topk)
    z  = p+                                                                             (relu)
    z  = p where p > threshold, else 0                                                  (jumprelu)
    h^ = z W_d + b

`training` makes one, `files` reads those that others have published.

Reference: Scaling and evaluating sparse autoencoders, 2024; Jumping Ahead: Improving Reconstruction
Fidelity with JumpReLU Sparse Autoencoders, 2024.
"""

from expunge.lm.sae.coder import ACTIVATIONS, Activation, Autoencoder, largest
from expunge.lm.sae.files import inspect, load, refuse_unfit, save
from expunge.lm.sae.layouts import Kept
from expunge.lm.sae.splice import spliced
from expunge.lm.sae.training import train

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Autoencoder",
    "Kept",
    "inspect",
    "largest",
    "load",
    "refuse_unfit",
    "save",
    "spliced",
    "train",
]
