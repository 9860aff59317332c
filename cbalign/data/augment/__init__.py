"""Image augmentation: random views, colour distortions and the pixel kernels they use."""
