"""Auxiliary terms: what else a latent space is asked to hold, and the heads that planners may use later."""
